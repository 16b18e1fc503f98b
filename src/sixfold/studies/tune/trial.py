"""What a worker does for a trial: its training, from the rung before to the next.

Every trial is an ordinary training, with a run directory of its own that all its rungs share:
`trials/<hash of its settings>`. Between rungs it is a run that was not finished; a rung resumes it
from its last checkpoint.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.config import RunConfig
from sixfold.core.errors import NonFiniteLossError, RunError, UserError
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import RunDirectory
from sixfold.core.settings import hints_of
from sixfold.distributed.engines import open_engine
from sixfold.distributed.tasks import Assignment
from sixfold.models.project import refuse_edited
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.selection import Pause

TRIALS = "trials"
"""Folder of the trials' run directories within that of the search."""


def trial_folder(search: Path, fingerprint: str) -> Path:
    """The run directory of a trial."""
    return search / TRIALS / hashlib.sha256(fingerprint.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class TrialWork:
    """Trains a trial to a rung, with a worker alone; several ranks take turns within it."""

    metric: str
    checkpoint_every: int | None

    def __call__(self, assignment: Assignment) -> dict[str, Any]:
        """Train; the metric, or `refused`, `diverged` or `broken` with the reason."""
        settings = assignment.settings
        folder = assignment.folder.parents[1] / settings["folder"]
        config = self._config(settings["train"], folder)
        refuse_edited(config.model.model, settings["inputs"]["files"])
        pause = Pause(step=settings["until"], metric=self.metric)
        try:
            with contextlib.closing(open_engine("inline")) as engine:
                found = train(
                    config,
                    engine=engine,
                    on_event=_progress_to(assignment),
                    hold=False,  # one whose worker is thought dead may hold it still
                    pause=pause,
                )
        except UserError as error:
            return {"refused": "; ".join(error.problems)}
        except NonFiniteLossError as error:
            _slim(folder)
            return {"diverged": str(error)}
        except (RunError, MemoryError) as error:
            return {"broken": str(error) or type(error).__name__}
        if "weights_sha256" in found:
            _slim(folder)
        shown = ("validation_accuracy", "steps", "test_accuracy", "test_loss", "weights_sha256")
        return {
            "value": found[f"validation_{self.metric}"],
            "accuracy": found.get("validation_accuracy"),
            **{name: found[name] for name in shown if name in found},
        }

    def _config(self, train: Mapping[str, Any], folder: Path) -> TrainConfig:
        parts = {
            name: section(**train[name])
            for name, section in hints_of(TrainConfig).items()
            if name in train
        }
        run = RunConfig(
            out=str(folder),
            resume=RunDirectory(folder).holds_a_run(),
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=1,
        )
        return TrainConfig(**parts, run=run)


def _progress_to(assignment: Assignment) -> OnEvent:
    """Passes on how far the training is."""
    until = assignment.settings["until"]

    def report(event: Mapping[str, Any]) -> None:
        if event.get("kind") == "progress":
            assignment.report_progress(
                part=min(event["step"] / until, 1.0),
                epoch=event["epoch"],
                accuracy=event["accuracy"],
            )

    return report


def _slim(folder: Path) -> None:
    """Drop what only an unfinished training needs."""
    for name in ("checkpoints", "snapshots"):
        shutil.rmtree(folder / name, ignore_errors=True)
