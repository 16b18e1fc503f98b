"""What a dictionary's learning writes while it runs, and its checkpoints.

Random state needs no saving: every draw follows from the seed and the number of the update, so
that number is the schedule's position and the random state in one.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sixfold.core import tensor_file
from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_atomically
from sixfold.core.run_directory import JsonLines, RankFiles
from sixfold.distributed.process_group import Communicator
from sixfold.lca.learning import Learner
from sixfold.lca.warm import WarmStarts
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

    def step(self, step: int, line: dict[str, Any], elements: list[dict[str, Any]]) -> float:
        """Log an update; the time that was logged, in Unix seconds."""
        now = time.time()
        self._elements.append(*({"step": step, **element} for element in elements))
        if self._metrics is not None:
            self._metrics.append({"step": step, "time": now, **line})
            if time.monotonic() - self._reported_at > REPORT_S:
                self._reported_at = time.monotonic()
                self._comm.report({"kind": "learned", "step": step, "total": self._total, **line})
        return now

    def close(self) -> None:
        """Close the files."""
        self._elements.close()
        if self._metrics is not None:
            self._metrics.close()


def save_state(folder: Path, step: int, learner: Learner, warm: WarmStarts, *, keep: int) -> None:
    """Write a checkpoint, then remove all but the last `keep`.

    Raises:
        RunError: if it cannot be written; older ones stay.
    """
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
    """Put a checkpoint's state in place; the number of updates it has seen.

    Raises:
        UserError: if the file is damaged or belongs to another dictionary.
    """
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
