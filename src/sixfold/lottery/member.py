"""What a worker does for a member of a trellis: a serial training, or a line between two.

A training is that of `sixfold train` with one worker, in a run directory of its own which is the
member's folder: the same steps, log, checkpoints and evaluations. It begins with the dense run's
weights of the rewind point (fresh ones for the control `reinit`), under the mask, at the step of
the rewind point; velocities and moments begin at zero.
"""

import dataclasses
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.config import RunConfig
from sixfold.core.files import write_json
from sixfold.core.random_keys import key
from sixfold.core.run_directory import RunDirectory, as_json, read_json_lines
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.process_group import Communicator, PlainData, SingleProcess
from sixfold.distributed.tasks import Assignment
from sixfold.lottery.line import measure_line
from sixfold.lottery.plan import member_seed
from sixfold.lottery.transfer import carry_over
from sixfold.models.config import ModelConfig
from sixfold.training.checkpoint import path_of
from sixfold.training.config import InitializationConfig, TrainConfig
from sixfold.training.model_card import read_card, weights_file
from sixfold.training.sparsity import (
    Mask,
    kept_weights,
    load_mask,
    magnitude_mask,
    prunable,
    prune_counts,
    random_mask,
    save_mask,
)
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.worker import TrainJob, train_rank

DENSE = "dense"  # folder of the dense run within that of the job


@dataclass(frozen=True, kw_only=True)
class TrellisWork:
    """The work of a trellis' members; see `sixfold.distributed.tasks.Work`."""

    config: TrainConfig  # settings of the dense run, with data that workers can open
    steps: int
    # the same with the data set that a ticket is carried over to, and its steps
    transfer: tuple[TrainConfig, int] | None = None
    # hashes of the files of the user's own that the network is made of
    source: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, assignment: Assignment) -> dict[str, Any]:
        """Train, or measure a line."""
        task = assignment.settings["task"]
        if task == "line":
            return measure_line(self.config, assignment)
        if task == "transfer":
            assert self.transfer is not None, "only planned with a data set"
            config, steps = self.transfer
            return train_alone(carry_over(config, assignment), assignment, steps, self.source)
        return self._train(assignment)

    def _train(self, assignment: Assignment) -> dict[str, Any]:
        settings = assignment.settings
        dense = assignment.folder.parents[1] / DENSE
        figures: dict[str, Any] = {}
        initialization = InitializationConfig(start_step=settings["rewind"])
        if settings["kind"] != "reinit":
            weights = path_of(dense / "snapshots", settings["rewind"])
            initialization = dataclasses.replace(initialization, weights=str(weights))
        if settings["kind"] != "dense":
            mask = make_mask(
                self.config.model, settings, dense, list(assignment.dependencies.values())
            )
            path = assignment.folder / "mask.safetensors"
            save_mask(path, mask)
            initialization = dataclasses.replace(initialization, mask=str(path))
            kept, total = kept_weights(mask)
            figures = {
                "kept": kept,
                "prunable": total,
                "layers": {name: int(keep.sum()) for name, keep in mask.items()},
            }
        purpose = "reinit" if settings["kind"] == "reinit" else "order"
        config = dataclasses.replace(
            self.config,
            training=dataclasses.replace(
                self.config.training,
                seed=member_seed(self.config.training.seed, settings["seed"], purpose),
            ),
            initialization=initialization,
        )
        return figures | train_alone(config, assignment, self.steps, self.source)


def make_mask(
    model: ModelConfig, settings: Mapping[str, Any], dense: Path, needs: list[Path]
) -> Mask:
    """The mask of a member."""
    source = needs[0] if needs else dense
    file = weights_file(source)
    layers = prunable(read_card(file, trust=True).of(model).build())
    within = load_mask(source / "mask.safetensors") if needs else None
    groups = prune_counts(
        layers,
        settings["sparsity"],
        scope=settings["scope"],
        rates=settings["rates"],
        already={name: int((~keep).sum()) for name, keep in (within or {}).items()},
    )
    mask = magnitude_mask(read_weights(file), groups, within)
    if settings["kind"] == "random":
        return random_mask(mask, key("ticket", settings["seed"]))
    return mask


def train_alone(
    config: TrainConfig, assignment: Assignment, steps: int, source: Mapping[str, str]
) -> dict[str, Any]:
    """Train with this worker alone, in the member's folder; its figures."""
    config = dataclasses.replace(
        config,
        engine=EngineConfig(engine="inline", workers=1),
        run=RunConfig(out=str(assignment.folder), resume=True, keep_checkpoints=1),
    )
    directory = RunDirectory(assignment.folder)
    directory.create()
    write_json(directory.file("config.json"), as_json(config))
    attempt = directory.claim()
    link = _Link(assignment, config.initialization.start_step, steps)
    comm = Communicator(rank=0, size=1, host=socket.gethostname(), attempt=attempt, transport=link)
    found = train_rank(TrainJob(config=config, claim=directory.ticket(), source=source), comm)
    # What the next try would have gone on from; a trellis of hundreds would fill the disk.
    shutil.rmtree(assignment.folder / "checkpoints", ignore_errors=True)
    return {
        "accuracy": found["validation_accuracy"],
        "test_accuracy": found["test_accuracy"],
        "test_loss": found["test_loss"],
        "steps": found["steps"] - config.initialization.start_step,
        "training_s": found["training_s"],
        "train_images_per_s": found["train_images_per_s"],
        "weights_sha256": found["weights_sha256"],
        **early_stop(assignment.folder),
    }


def early_stop(run: Path) -> dict[str, Any]:
    """`early_stop_step`, of least validation loss, and the accuracy there; else empty."""
    lines = read_json_lines(run / "metrics.jsonl")
    found = [line for line in lines if line.get("part") == "validation"]
    if not found:
        return {}
    best = min(found, key=lambda line: line["eval_loss"])
    return {"early_stop_step": best["step"], "early_stop_accuracy": best["eval_accuracy"]}


class _Link(SingleProcess):
    """The link of a member's only rank: its progress becomes the member's."""

    def __init__(self, assignment: Assignment, first: int, steps: int) -> None:
        self._assignment, self._first, self._steps = assignment, first, steps
        self._accuracy: float | None = None

    def report(self, event: PlainData) -> None:
        if event.get("kind") == "evaluation":
            self._accuracy = event["eval_accuracy"]
        if event.get("kind") not in ("progress", "evaluation"):
            return
        part = (event["step"] - self._first) / max(self._steps - self._first, 1)
        self._assignment.report_progress(
            part=min(part, 1.0),
            epoch=event["epoch"],
            accuracy=event["accuracy"] if self._accuracy is None else self._accuracy,
        )
