"""What a tracker is: where settings, metrics and files of a training are shown by others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value of a metric at a step."""

    name: str  # such as train/loss
    value: float
    step: int
    time: float  # Unix seconds


class Tracker(Protocol):
    """One training as a tracker sees it; whatever fails raises, and is tried again later.

    What a method was given has left this process when it returns.
    """

    run_id: str  # by which the tracker knows the training

    def table(self, name: str, values: Mapping[str, Any]) -> None:
        """Take the `settings`, or the `result`, by flat names; a later call replaces values."""

    def points(self, points: Sequence[Point]) -> None:
        """Take values of metrics."""

    def file(self, path: Path) -> None:
        """Take a file of the run directory."""

    def model(self, directory: Path) -> None:
        """Take the network of a finished run directory in the tracker's own format."""

    def close(self, status: str) -> None:
        """End as "finished", "failed" or "stopped", or "running" where it is to be opened again."""
