"""`sixfold export`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand
from sixfold.prediction.export.config import ExportConfig


def summary(figures: dict[str, Any]) -> list[str]:
    """What was written, and how far it is from the network that it was made of."""
    shape = " x ".join(map(str, figures["shape"]))
    return [
        f"network            {figures['model']}, {figures['format']}, "
        f"{figures['bytes'] / 1e6:.2f} MB",
        f"takes              images N x {shape}, {figures['pixels']}",
        f"largest difference {figures['largest_difference']:.2g} of scores up to "
        f"{figures['largest_score']:.3g}, {figures['images']} images in {figures['checked_by']}",
        f"file               {figures['file']}",
    ]


COMMAND = ConfigCommand(
    config=ExportConfig,
    function="sixfold.prediction.export.run:export",
    summary=summary,
    words={"run": ("RUN", "run directory")},
)
options, run = COMMAND.options, COMMAND.run
