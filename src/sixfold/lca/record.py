"""What a learning writes while it runs: logs, codes for warm starts, checkpoints.

Random state needs no saving: every draw follows from the seed and the number of the update, so
that number is the position of the schedule and the random state in one. Codes are kept sparse, and
every rank keeps all of them, so that it does not matter who computes an element next, and a
checkpoint of one rank holds everything.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from sixfold.core import tensor_file
from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_atomically
from sixfold.core.run_directory import JsonLines, RankFiles
from sixfold.distributed.collectives import all_gather_int
from sixfold.distributed.process_group import Communicator
from sixfold.lca.learning import Learner
from sixfold.lca.order import Order
from sixfold.lca.results import Update
from sixfold.training.checkpoint import list_checkpoints, path_of
from sixfold.training.log import REPORT_S

FORMAT = "lca-1"


class LearnLog:
    """Figures of every update (rank 0) and of every element (each rank its own)."""

    def __init__(self, files: RankFiles, comm: Communicator, step: int, total: int) -> None:
        files.fence()
        folder = files.path / "elements"
        if comm.rank == 0:
            # Another number of ranks may go on: lines after the checkpoint are made again.
            for path in sorted(folder.glob("rank-*.jsonl")):
                JsonLines(path, up_to_step=step).close()
        comm.barrier()
        self._comm, self._total, self._reported_at = comm, total, float("-inf")
        self._elements = JsonLines(folder / f"rank-{comm.rank:04d}.jsonl", up_to_step=step)
        self._metrics = (
            JsonLines(files.path / "metrics.jsonl", up_to_step=step) if comm.rank == 0 else None
        )

    def step(self, update: Update, elements: list[dict[str, Any]]) -> float:
        """Log an update; the time that was logged, in Unix seconds."""
        now, step, line = time.time(), update.step, vars(update)
        self._elements.append(*({"step": step, **element} for element in elements))
        if self._metrics is not None:
            self._metrics.append({"step": step, "time": now} | line)
            if time.monotonic() - self._reported_at > REPORT_S:
                self._reported_at = time.monotonic()
                self._comm.report({"kind": "learned", "total": self._total, **line})
        return now

    def close(self) -> None:
        """Close the files."""
        self._elements.close()
        if self._metrics is not None:
            self._metrics.close()


def save_state(folder: Path, step: int, learner: Learner, warm: WarmStarts, *, keep: int) -> None:
    """Write a checkpoint, then remove all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(learner, name) for name in ("atoms", "velocity", "quiet", "seen")}
    if warm.kind != "none":
        tensors["warm"] = warm.state()
    card = {"format": FORMAT, "step": step, "seed": learner.seed}
    data = tensor_file.pack(tensors, {"sixfold.lca": json.dumps(card)})
    write_atomically(path_of(folder, step), data)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)


def load_state(path: Path, learner: Learner, warm: WarmStarts) -> int:
    """Put a checkpoint's state in place; the number of updates it has seen."""
    try:
        with tensor_file.open_tensors(path) as file:
            card = parse_json((file.metadata() or {})["sixfold.lca"])
            if card["format"] != FORMAT:
                raise ValueError(f"format {card['format']}, this version reads {FORMAT}")
            atoms = file.get_tensor("atoms")
            if atoms.shape != learner.atoms.shape:
                raise ValueError(f"atoms {tuple(atoms.shape)}, not {tuple(learner.atoms.shape)}")
            learner.atoms = atoms.to(learner.atoms.dtype)
            learner.velocity = file.get_tensor("velocity").to(torch.float64)
            learner.quiet, learner.seen = file.get_tensor("quiet"), file.get_tensor("seen")
            if warm.kind != "none":
                warm.load_state(file.get_tensor("warm"))
            return int(card["step"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or belongs to another dictionary ({error}): remove it to go on "
            "from an older checkpoint"
        ) from error


Sparse = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Places of entries that are not zero, and their values."""


class WarmStarts:
    """Codes (K, P, Q) by image (kind `epoch`) or by element (`frame`); `none` keeps none."""

    def __init__(self, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.kind, self.shape, self._dtype = kind, shape, dtype
        self._codes: dict[int, Sparse] = {}

    def get(self, order: Order, step: int, element: int, image: int) -> Tensor | None:
        """The code with which an element begins at an update; None for none."""
        key = image if self.kind == "epoch" else element
        if key not in self._codes or (self.kind == "frame" and not order.follows(step, element)):
            return None
        places, values = self._codes[key]
        code = torch.zeros(math.prod(self.shape), dtype=self._dtype)
        code[torch.from_numpy(places)] = torch.from_numpy(values).to(self._dtype)
        return code.view(self.shape)

    def share(
        self, comm: Communicator, elements: list[int], chosen: list[int], codes: Tensor
    ) -> None:
        """Keep the codes (n, K, P, Q) of all ranks' elements; every rank gets all the others'.

        `chosen` is the image of each element of the batch.
        """
        if self.kind == "none":
            return
        keys = [chosen[element] for element in elements] if self.kind == "epoch" else elements
        packed = _pack(keys, codes)
        lengths = all_gather_int(comm, len(packed))
        others = [rank for rank in range(comm.size) if rank != comm.rank]
        received = {rank: np.empty(lengths[rank], np.float64) for rank in others}
        comm.exchange(dict.fromkeys(others, packed), received)
        for rank in range(comm.size):
            self._unpack(packed if rank == comm.rank else received[rank])

    def _unpack(self, packed: NDArray[np.float64]) -> None:
        at = 0
        while at < len(packed):
            key, count = int(packed[at]), int(packed[at + 1])
            places = packed[at + 2 : at + 2 + count].astype(np.int64)
            values = packed[at + 2 + count : at + 2 + 2 * count].copy()
            self._codes[key] = places, values
            at += 2 + 2 * count

    def state(self) -> Tensor:
        """All codes as one vector, for a checkpoint."""
        parts = [np.zeros(0)]
        for key, (places, values) in sorted(self._codes.items()):
            parts += [np.array([key, len(places)], np.float64), places.astype(np.float64), values]
        return torch.from_numpy(np.concatenate(parts))

    def load_state(self, state: Tensor) -> None:
        """Take what `state` gave."""
        self._codes.clear()
        self._unpack(state.numpy())


def _pack(keys: list[int], codes: Tensor) -> NDArray[np.float64]:
    """Key, number of entries, places and values of each code, one after the other."""
    parts = []
    for key, code in zip(keys, codes, strict=True):
        flat = code.reshape(-1).double().numpy()
        places = np.flatnonzero(flat)
        parts += [[key, len(places)], places, flat[places]]
    return np.concatenate([np.zeros(0), *parts])
