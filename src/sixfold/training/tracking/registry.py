"""The trackers: one `TrackerSpec` each."""

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.checks import unknown
from sixfold.training.tracking.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class TrackerSpec:
    """A tracker."""

    packages: tuple[str, ...]  # what has to be installed, by the names to import
    # `module:function` that opens it: called with the run directory and the `run_id` of before, or
    # "" at the first time.
    opened: str
    # Which files it takes, of those of a run directory, besides tables and metrics.
    takes: tuple[str, ...] = ()
    takes_model: bool = False  # whether it has a format of its own for networks

    def open(self, directory: Path, run_id: str) -> Tracker:
        """Begin a training, or go on with one."""
        module, _, function = self.opened.partition(":")
        tracker: Tracker = getattr(importlib.import_module(module), function)(directory, run_id)
        return tracker


TRACKERS = {
    "tensorboard": TrackerSpec(
        packages=("tensorboard",),
        opened="sixfold.training.tracking.event_files:open_tensorboard",
    ),
    "mlflow": TrackerSpec(
        packages=("mlflow", "pandas"),
        opened="sixfold.training.tracking.mlflow_store:open_mlflow",
        takes=("config.json", "report.html", "model.safetensors"),
        takes_model=True,
    ),
}


def tracker_problems(names: Iterable[str]) -> list[str]:
    """Why trackers cannot be used, one line each."""
    found = []
    for name in names:
        if name not in TRACKERS:
            found.append(f"--track {name}: " + unknown("tracker", name, TRACKERS))
            continue
        packages = TRACKERS[name].packages
        if missing := [word for word in packages if importlib.util.find_spec(word) is None]:
            found.append(
                f"--track {name}: needs the package {' and '.join(missing)}: "
                "pip install 'sixfold[track]'"
            )
    return found
