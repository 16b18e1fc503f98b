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

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core.run_directory import Claim, RankFiles
from sixfold.distributed.collectives import all_gather, all_gather_data, tree_all_reduce
from sixfold.distributed.logical_shards import Node, owned_shards, shard_bounds, shard_count
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.lca.config import LcaLearnConfig
from sixfold.lca.dictionary import Learned, pack, patch_atoms, patch_places, random_atoms
from sixfold.lca.geometry import Geometry
from sixfold.lca.inputs import ImageSource, OpenedImages, open_images
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.learning import Learner, ShardSums, Totals, sum_shards
from sixfold.lca.order import order_of
from sixfold.lca.phases import Phases
from sixfold.lca.preprocess import SAMPLE, Preprocess, learn_preprocess
from sixfold.lca.record import LearnLog, WarmStarts, load_state, save_state
from sixfold.lca.results import LearnFigures, Update
from sixfold.lca.samples import make_samples
from sixfold.lca.solver import Solution, Solver
from sixfold.lca.tiles import Tiles, grid_of
from sixfold.training.checkpoint import newest_intact, weights_sha256
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.schedule import TrainingLength, parse_schedule
from sixfold.training.worker import CHECKPOINT_S

CHECKPOINT_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class LearnJob:
    """What the launcher hands to every rank."""

    config: LcaLearnConfig  # with paths made absolute
    source: ImageSource
    geometry: Geometry
    claim: Claim


def learn_rank(job: LearnJob, comm: Communicator) -> dict[str, Any]:
    """Learn as one rank of a process group; rank 0 gives the figures of `result.json`."""
    with one_thread():
        return _Learning(job, comm).run()


class _Learning:
    def __init__(self, job: LearnJob, comm: Communicator) -> None:
        config, learn = job.config, job.config.learn
        self.comm, self.config, self.geometry = comm, config, job.geometry
        self.is_root = comm.rank == 0
        self.files = RankFiles(job.claim, attempt=comm.attempt, rank=comm.rank, host=comm.host)
        self.images = open_images(job.source)
        self.dtype: torch.dtype = getattr(torch, config.dictionary.precision)
        self.preprocess = _preprocess(config.input.preprocess, self.images, comm)
        self.order = order_of(learn, self.images.count, self.images.movies)
        self.learner = Learner(
            self.geometry,
            _of_rank_0(comm, self._first_atoms()),
            momentum=learn.momentum,
            revive_after=learn.resample_dead_after,
            seed=learn.seed,
        )
        grid = grid_of(learn.grid, comm.size)
        mesh, first = grid.mesh, comm.rank // grid.mesh.size * grid.mesh.size
        # The ranks that divide the same images, and those with the same place in other groups.
        self.group = comm.subgroup(range(first, first + mesh.size))
        self.peers = comm.subgroup(range(comm.rank % mesh.size, comm.size, mesh.size))
        self.tiles: Tiles | None = None
        self.form = config.dynamics.form
        if mesh.size > 1:
            self.tiles = Tiles(self.group, (mesh.rows, mesh.cols), Phases(self.geometry))
            self.form = "residual"
        self.count = shard_count(learn.batch_size, wanted=learn.shards)
        self.own = owned_shards(self.count, self.peers.size, self.peers.rank)
        self.warm = WarmStarts(
            learn.warm_start, (self.geometry.atoms, *self.geometry.positions), self.dtype
        )
        self.schedule = parse_schedule(OptimizerConfig(lr=learn.lr, schedule=learn.schedule))
        self.length = TrainingLength(
            images=learn.batch_size, batch_size=learn.batch_size, total_steps=learn.steps
        )
        self.checkpoints = self.files.path / "checkpoints"
        self.done = self._restore()
        self.log = LearnLog(self.files, comm, self.done, learn.steps)
        self.saved_at = time.monotonic()

    def _first_atoms(self) -> Tensor:
        seed = self.config.learn.seed
        if self.config.dictionary.initial == "random":
            return random_atoms(self.geometry, seed, self.dtype)
        count = self.images.count
        wanted = sorted({place[0] for place in patch_places(self.geometry, count, seed)})
        images = dict(zip(wanted, self._prepared(wanted), strict=True))
        return patch_atoms(self.geometry, seed, images, count).to(self.dtype)

    def _prepared(self, indices: list[int]) -> Tensor:
        return self.preprocess(self.images.pixels(np.array(indices, np.int64)), self.dtype)

    def _note(self, text: str) -> None:
        self.comm.report({"kind": "note", "text": text})

    def _restore(self) -> int:
        """Go on from the checkpoint that rank 0 finds newest, or from the beginning."""
        found = newest_intact(self.checkpoints, self._note) if self.is_root else None
        newest = all_gather_data(self.comm, found.name if found else "")[0]
        return load_state(self.checkpoints / newest, self.learner, self.warm) if newest else 0

    def run(self) -> dict[str, Any]:
        comm, total, groups = self.comm, self.config.learn.steps, self.peers.size
        comm.report({"kind": "rank", "rank": comm.rank, "host": comm.host, "pid": os.getpid()})
        if self.is_root and groups > self.count:
            self._note(
                f"{groups - self.count} of {groups} groups of workers have nothing to do: a batch "
                f"of {self.config.learn.batch_size} has {self.count} logical shards (--shards, or "
                "a larger --batch-size, gives more)"
            )
        started, first = time.monotonic(), self.done
        ends: list[float] = []
        try:
            while self.done < total:
                ends.append(self._advance())
                if self.is_root:
                    self._after_step()
            # The first update warms up caches and allocators.
            spent = ends[-1] - ends[0] if ends else 0.0
            return self._finish(started, (self.done - first - 1) / spent if spent > 0 else None)
        finally:
            self.log.close()
            self.files.close()

    def _after_step(self) -> None:
        stop, every = self.comm.should_stop(), self.config.run.checkpoint_every
        late = every is None and time.monotonic() - self.saved_at > CHECKPOINT_S
        is_last = self.done == self.config.learn.steps
        if is_last or stop or late or self.done % (every or CHECKPOINT_STEPS) == 0:
            self.files.fence()
            keep = self.config.run.keep_checkpoints
            save_state(self.checkpoints, self.done, self.learner, self.warm, keep=keep)
            self.files.publish()
            self.saved_at = time.monotonic()
        if stop:
            raise KeyboardInterrupt

    def _advance(self) -> float:
        begin, step, batch = time.perf_counter(), self.done, self.config.learn.batch_size
        revived = self.learner.to_revive()
        sums = ShardSums(self.geometry, len(revived))
        chosen = self.order.at(step)
        runs = [range(*shard_bounds(batch, self.count, shard)) for shard in self.own]
        mine = [element for run in runs for element in run]
        interaction = LateralInhibition(self.learner.atoms, self.geometry, form=self.form)
        nodes: list[tuple[Node, Any]] = []
        lines: list[dict[str, Any]] = []
        codes = torch.zeros(0, *self.warm.shape)
        if mine:
            images = self._prepared([chosen[element] for element in mine])
            solution = self._solve(interaction, images, step, mine, chosen)
            donors = [self.learner.donor(step, atom, batch) for atom in revived]
            shards = zip(self.own, runs, strict=True)
            nodes = sum_shards(sums, interaction, images, solution, shards, donors).nodes
            if self.group.rank == 0:  # it speaks for its group
                lines, codes = self._lines(images, solution, mine, chosen), solution.codes
        self.warm.share(self.comm, mine[: len(codes)], chosen, codes)
        totals = sums.read(tree_all_reduce(self.peers, nodes, self.count, out=sums.empty()))
        lr = self.schedule.rate(step, self.length)
        self.learner.update(totals, revived, lr)
        self.done += 1
        line = self._line(totals, lr, len(revived), time.perf_counter() - begin)
        return self.log.step(line, lines)

    def _solve(
        self,
        interaction: LateralInhibition,
        images: Tensor,
        step: int,
        mine: list[int],
        chosen: list[int],
    ) -> Solution:
        """Codes of this group's elements, whole on every rank of the group."""
        start = [self.warm.get(self.order, step, element, chosen[element]) for element in mine]
        if self.tiles is not None:
            start = [None if code is None else self.tiles.part(code) for code in start]
        solver = Solver(interaction, self.config.dynamics, tiles=self.tiles)
        solution = solver.solve(images, start=start)
        if self.tiles is None:
            return solution
        return Solution(**{**vars(solution), "codes": self.tiles.join(solution.codes)})

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
                "gap": float(f"{gap:.6g}") if np.isfinite(gap) else None,
            }
            for index, (element, gap) in enumerate(zip(mine, solution.gap.tolist(), strict=True))
        ]

    def _line(self, totals: Totals, lr: float, revived: int, seconds: float) -> Update:
        """What is logged of the update: means over the batch."""
        found = totals.figures
        n = found["elements"]
        return Update(
            step=self.done,
            epoch=round(self.done / self.order.epoch_steps, 6),
            energy=found["energy"] / n,
            sparsity=1 - found["active"] / n / self.geometry.codes,
            error=found["squares"] / max(found["power"], 1e-300),
            code_steps=found["steps"] / n,
            certified=found["done"] / n,
            dead_atoms=int((self.learner.quiet > 0).sum()),
            revived=revived,
            lr=lr,
            images=int(n),
            images_per_s=round(n / seconds, 3),
        )

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
        shown = self._prepared(list(range(min(16, self.images.count))))
        samples = make_samples(learned, shown, self.learner.seen)
        self.files.write_bytes("samples.safetensors", samples)
        figures = LearnFigures(
            steps=self.done,
            images=self.done * self.config.learn.batch_size,
            dictionary_sha256=weights_sha256({"atoms": self.learner.atoms}),
            atoms=self.geometry.atoms,
            positions=list(self.geometry.positions),
            form=LateralInhibition(self.learner.atoms, self.geometry, form=self.form).form,
            lane_width=self.geometry.lane_width,
            logical_shards=self.count,
            updates_per_s=None if updates_per_s is None else round(updates_per_s, 4),
            learning_s=round(time.monotonic() - started, 3),
            bad_files=list(self.images.bad),
        )
        return vars(figures)


def _of_rank_0(comm: Communicator, tensor: Tensor) -> Tensor:
    """Rank 0's values on every rank: machines may differ in a last digit of a set-up."""
    found: Tensor = torch.from_numpy(all_gather(comm, tensor.contiguous().numpy())[0].copy())
    return found


def _preprocess(kind: str, images: OpenedImages, comm: Communicator) -> Preprocess:
    """The preparation of images, the same on every rank."""
    sample = images.pixels(np.arange(min(SAMPLE, images.count), dtype=np.int64))
    made = learn_preprocess(kind, images.mean, sample)
    if made.whitening is None:
        return made
    return Preprocess(kind=kind, mean=made.mean, whitening=_of_rank_0(comm, made.whitening))
