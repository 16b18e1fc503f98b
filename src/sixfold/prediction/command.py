"""`sixfold predict`."""

from __future__ import annotations

from typing import Any

from sixfold.core.console.command import ConfigCommand
from sixfold.prediction.config import PredictConfig


def summary(figures: dict[str, Any]) -> list[str]:
    """The closing lines; with the accuracy where there are labels."""
    lines = [f"images             {figures['images']:,}"]
    if "accuracy" in figures:
        lines.append(
            f"accuracy           {figures['accuracy']:.2%}   "
            f"(balanced {figures['balanced_accuracy']:.2%})"
        )
    return [*lines, f"predictions        {figures['file']}"]


COMMAND = ConfigCommand(
    config=PredictConfig,
    function="sixfold.prediction.run:predict",
    summary=summary,
    words={"run": ("RUN", "run directory")},
)
options, run = COMMAND.options, COMMAND.run
