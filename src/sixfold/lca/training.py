"""What every rank does while a dictionary learns.

    for each update:
        prepare the images of this group's logical shards
        find their codes (together with the other ranks of the group, if images are divided)
        one vector a shard, added over all shards in the fixed tree
        every rank makes the same update

Guarantee: the same dictionary, bit for bit, for any number of ranks, any grid and any engine. When
a rank dies the process group starts again from the last checkpoint, if the engine has restarts
left.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core.run_directory import Claim, RankFiles
from sixfold.distributed.collectives import all_gather, all_gather_data, tree_all_reduce
from sixfold.distributed.logical_shards import (
    Node,
    TreeFold,
    owned_shards,
    shard_bounds,
    shard_count,
)
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.lca.config import LcaLearnConfig
from sixfold.lca.dictionary import Learned, pack, patch_atoms, patch_places, random_atoms
from sixfold.lca.geometry import Geometry
from sixfold.lca.inputs import Pictures, Source, open_pictures
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.learning import Learner, Payload, Totals, shard_vector
from sixfold.lca.order import Order
from sixfold.lca.phases import Phases
from sixfold.lca.preprocess import SAMPLE, Preprocess, learn_preprocess
from sixfold.lca.record import LearnLog, load_state, save_state
from sixfold.lca.samples import make_samples
from sixfold.lca.solver import Solution, Solver
from sixfold.lca.tiles import Tiles, parse_grid
from sixfold.lca.warm import WarmStarts
from sixfold.training.checkpoint import newest_intact, weights_sha256
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.schedule import TrainingLength, parse_schedule

CHECKPOINT_S = 60.0
CHECKPOINT_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class LearnJob:
    """What the launcher hands to every rank.

    Attributes:
        config: the settings, with paths made absolute.
        source: the images, resolved.
        geometry: the sizes.
        claim: the run directory.
    """

    config: LcaLearnConfig
    source: Source
    geometry: Geometry
    claim: Claim


def learn_rank(job: LearnJob, comm: Communicator) -> dict[str, Any]:
    """Learn as one rank of a process group.

    Returns:
        On rank 0 the figures of `result.json` that ranks know; on the others their rank.

    Raises:
        UserError: if the run directory or the data cannot be used from this host.
        RunError: if codes diverge.
        PeerLostError: if another rank is gone.
    """
    with one_thread():
        return _Learning(job, comm).run()


class _Learning:
    """One rank's part, from set-up to the dictionary's file."""

    def __init__(self, job: LearnJob, comm: Communicator) -> None:
        config = job.config
        self.comm, self.config, self.geometry = comm, config, job.geometry
        self.files = RankFiles(job.claim, attempt=comm.attempt, rank=comm.rank, host=comm.host)
        self.pictures = open_pictures(job.source)
        self.dtype: torch.dtype = getattr(torch, config.dictionary.precision)
        self.preprocess = _preprocess(config.input.preprocess, self.pictures, comm)
        learn = config.learn
        self.order = Order(
            kind=learn.order,
            images=self.pictures.count,
            batch=learn.batch_size,
            seed=learn.seed,
            movies=self.pictures.movies,
            frames=learn.frames,
        )
        self.learner = Learner(
            self.geometry,
            shared(comm, self._first_atoms()),
            momentum=learn.momentum,
            revive_after=learn.resample_dead_after,
            seed=learn.seed,
        )
        self.grid = parse_grid(learn.grid, comm.size)
        self.group, self.peers = self.grid.group(comm), self.grid.peers(comm)
        self.tiles = (
            Tiles(self.group, (self.grid.rows, self.grid.columns), Phases(self.geometry))
            if self.grid.divides_images
            else None
        )
        self.count = shard_count(learn.batch_size, wanted=learn.shards)
        self.own = owned_shards(self.count, self.peers.size, self.peers.rank)
        self.warm = (
            WarmStarts((self.geometry.atoms, *self.geometry.positions), self.dtype)
            if learn.warm_start != "none"
            else None
        )
        self.schedule = parse_schedule(OptimizerConfig(lr=learn.lr, schedule=learn.schedule))
        self.budget = TrainingLength(
            images=learn.batch_size, batch_size=learn.batch_size, total_steps=learn.steps
        )
        self.checkpoints = self.files.path / "checkpoints"
        self.done = self._restore()
        self.log = LearnLog(self.files, comm, self.done, learn.steps)
        self.saved_at = time.monotonic()

    @property
    def is_root(self) -> bool:
        return self.comm.rank == 0

    def _first_atoms(self) -> Tensor:
        seed = self.config.learn.seed
        if self.config.dictionary.initial == "random":
            return random_atoms(self.geometry, seed, self.dtype)
        count = self.pictures.count
        wanted = sorted({place[0] for place in patch_places(self.geometry, count, seed)})
        images = self._images(wanted)
        return patch_atoms(self.geometry, seed, dict(zip(wanted, images, strict=True)), count).to(
            self.dtype
        )

    def _images(self, indices: list[int]) -> Tensor:
        return self.preprocess(self.pictures.images(np.array(indices, np.int64)), self.dtype)

    def _note(self, text: str) -> None:
        self.comm.report({"kind": "note", "text": text})

    def _restore(self) -> int:
        """Go on from the checkpoint that rank 0 finds newest, or from the beginning."""
        found = newest_intact(self.checkpoints, self._note) if self.is_root else None
        newest = all_gather_data(self.comm, found.name if found else "")[0]
        return load_state(self.checkpoints / newest, self.learner, self.warm) if newest else 0

    def run(self) -> dict[str, Any]:
        """Learn, and write the dictionary."""
        comm, total = self.comm, self.config.learn.steps
        comm.report({"kind": "rank", "rank": comm.rank, "host": comm.host, "pid": os.getpid()})
        groups = self.grid.batch
        if self.is_root and groups > self.count:
            comm.report(
                {
                    "kind": "note",
                    "text": f"{groups - self.count} of {groups} groups of workers have nothing to "
                    f"do: a batch of {self.config.learn.batch_size} has {self.count} logical "
                    "shards (--shards, or a larger --batch-size, gives more)",
                }
            )
        started, first = time.monotonic(), self.done
        timed: tuple[float, int] | None = None
        try:
            while self.done < total:
                ended = self._advance()
                if self.done == min(first + 1, total):
                    timed = (ended, self.done)
                if self.is_root:
                    self._after_step()
            spent = ended - timed[0] if timed and self.done > timed[1] else 0.0
            speed = (self.done - timed[1]) / spent if timed and spent > 0 else None
            return self._finish(started, speed)
        finally:
            self.log.close()

    def _after_step(self) -> None:
        stop, total = self.comm.should_stop(), self.config.learn.steps
        every = self.config.run.checkpoint_every or CHECKPOINT_STEPS
        late = (
            self.config.run.checkpoint_every is None
            and time.monotonic() - self.saved_at > CHECKPOINT_S
        )
        if self.done == total or stop or late or self.done % every == 0:
            self.files.fence()
            save_state(
                self.checkpoints,
                self.done,
                self.learner,
                self.warm,
                keep=self.config.run.keep_checkpoints,
            )
            self.saved_at = time.monotonic()
        if stop:
            raise KeyboardInterrupt

    def _advance(self) -> float:
        """Make one update and log it."""
        begin, step, learn = time.perf_counter(), self.done, self.config.learn
        revived = self.learner.to_revive()
        payload = Payload(self.geometry, len(revived))
        chosen = self.order.at(step)
        elements = [range(*shard_bounds(learn.batch_size, self.count, shard)) for shard in self.own]
        mine = [element for run in elements for element in run]
        interaction = LateralInhibition(self.learner.atoms, self.geometry, form=self._form())
        vectors: list[tuple[Node, Any]] = []
        lines: list[dict[str, Any]] = []
        if mine:
            images = self._images([chosen[element] for element in mine])
            solution = self._solve(interaction, images, step, mine, chosen)
            donors = [self.learner.donor(step, atom, learn.batch_size) for atom in revived]
            vectors = self._vectors(payload, interaction, images, solution, elements, donors)
            lines = self._lines(images, solution, mine, chosen)
        if self.warm is not None:
            self._remember(mine, chosen, solution.codes if mine else None)
        vector = tree_all_reduce(self.peers, vectors, self.count, out=payload.empty())
        totals = payload.read(vector)
        lr = self.schedule.rate(step, self.budget)
        self.learner.update(totals, revived, lr)
        self.done += 1
        seconds = time.perf_counter() - begin
        line = self._line(totals, lr, len(revived), seconds)
        return self.log.step(self.done, line, lines if self.group.rank == 0 else [])

    def _form(self) -> str:
        """Divided images are computed in residual form, so whole ones are, too, where asked for."""
        return "residual" if self.tiles is not None else self.config.dynamics.form

    def _solve(
        self,
        interaction: LateralInhibition,
        images: Tensor,
        step: int,
        mine: list[int],
        chosen: list[int],
    ) -> Solution:
        """Codes of this group's elements, whole on every rank of the group."""
        start = [self._start(step, element, chosen[element]) for element in mine]
        if self.tiles is not None:
            start = [None if code is None else self.tiles.part(code) for code in start]
        solver = Solver(interaction, self.config.dynamics, tiles=self.tiles)
        solution = solver.solve(images, start=start)
        if self.tiles is None:
            return solution
        return Solution(**{**vars(solution), "codes": self.tiles.join(solution.codes)})

    def _start(self, step: int, element: int, image: int) -> Tensor | None:
        """The code to begin with."""
        if self.warm is None:
            return None
        if self.config.learn.warm_start == "epoch":
            return self.warm.get(image)
        return self.warm.get(element) if self.order.follows(step, element) else None

    def _remember(self, mine: list[int], chosen: list[int], codes: Tensor | None) -> None:
        """Keep the codes for warm starts; a group's first rank speaks for it."""
        assert self.warm is not None
        keys = (
            [chosen[element] for element in mine]
            if self.config.learn.warm_start == "epoch"
            else mine
        )
        if codes is None or self.group.rank > 0:
            keys = []
        empty = torch.zeros(0, self.geometry.atoms, *self.geometry.positions)
        self.warm.share(self.comm, keys, codes if codes is not None and keys else empty)

    def _vectors(
        self,
        payload: Payload,
        interaction: LateralInhibition,
        images: Tensor,
        solution: Solution,
        elements: list[range],
        donors: list[int],
    ) -> list[tuple[Node, Any]]:
        """The shards' vectors, folded as far as this rank can."""
        residuals = interaction.residual(images, solution.codes)
        fold: TreeFold[Any] = TreeFold(lambda left, right: left + right)
        at = 0
        for shard, run in zip(self.own, elements, strict=True):
            inside = [donor - run.start if donor in run else None for donor in donors]
            vector = shard_vector(
                payload, images, residuals, solution, slice(at, at + len(run)), inside
            )
            fold.push(Node(0, shard), vector)
            at += len(run)
        return fold.nodes

    def _lines(
        self, images: Tensor, solution: Solution, mine: list[int], chosen: list[int]
    ) -> list[dict[str, Any]]:
        """What is logged of each element."""
        power = images.flatten(1).double().square().sum(1).clamp(min=1e-300)
        return [
            {
                "element": element,
                "image": chosen[element],
                "energy": round(float(solution.energy[index]), 7),
                "sparsity": round(float(solution.sparsity[index]), 7),
                "error": round(float(solution.squares[index] / power[index]), 7),
                "code_steps": int(solution.steps[index]),
                "gap": _rounded(float(solution.gap[index])),
            }
            for index, element in enumerate(mine)
        ]

    def _line(self, totals: Totals, lr: float, revived: int, seconds: float) -> dict[str, Any]:
        """What is logged of the update: means over the batch."""
        found = totals.figures
        n = found["elements"]
        return {
            "epoch": round(self.done / self.order.epoch_steps, 6),
            "energy": found["energy"] / n,
            "sparsity": 1 - found["active"] / n / self.geometry.codes,
            "error": found["squares"] / max(found["power"], 1e-300),
            "code_steps": found["steps"] / n,
            "certified": found["done"] / n,
            "dead_atoms": int((self.learner.quiet > 0).sum()),
            "revived": revived,
            "lr": lr,
            "images": int(n),
            "images_per_s": round(n / seconds, 3),
        }

    def _finish(self, started: float, updates_per_s: float | None) -> dict[str, Any]:
        if not self.is_root:
            return {"rank": self.comm.rank}
        learned = Learned(
            atoms=self.learner.atoms,
            geometry=self.geometry,
            preprocess=self.preprocess,
            dynamics=self.config.dynamics,
            data=self.config.input.data,
        )
        self.files.write_bytes("dictionary.safetensors", pack(learned))
        shown = list(range(min(16, self.pictures.count)))
        samples = make_samples(learned, self._images(shown), self.learner.seen)
        self.files.write_bytes("samples.safetensors", samples)
        return {
            "steps": self.done,
            "images": self.done * self.config.learn.batch_size,
            "dictionary_sha256": weights_sha256({"atoms": self.learner.atoms}),
            "atoms": self.geometry.atoms,
            "positions": list(self.geometry.positions),
            "form": LateralInhibition(self.learner.atoms, self.geometry, form=self._form()).form,
            "lane_width": self.geometry.lane_width,
            "logical_shards": self.count,
            "updates_per_s": None if updates_per_s is None else round(updates_per_s, 4),
            "learning_s": round(time.monotonic() - started, 3),
            "bad_files": list(self.pictures.bad),
        }


def _rounded(value: float) -> float | None:
    """A figure as JSON takes it."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def shared(comm: Communicator, tensor: Tensor) -> Tensor:
    """Rank 0's values on every rank: machines may differ in a last digit of a set-up."""
    found: Tensor = torch.from_numpy(all_gather(comm, tensor.contiguous().numpy())[0].copy())
    return found


def _preprocess(kind: str, pictures: Pictures, comm: Communicator) -> Preprocess:
    """The preparation of images, the same on every rank."""
    sample = pictures.images(np.arange(min(SAMPLE, pictures.count), dtype=np.int64))
    made = learn_preprocess(kind, pictures.mean, sample)
    if made.whitening is None:
        return made
    return Preprocess(kind=kind, mean=made.mean, whitening=shared(comm, made.whitening))
