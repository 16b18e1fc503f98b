"""`sixfold predict`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand
from sixfold.prediction.config import PredictConfig


def summary(figures: dict[str, Any]) -> list[str]:
    """The closing lines; with how good they are where that is known."""
    lines = [f"images             {figures['images']:,}"]
    if "accuracy" in figures:
        lines.append(
            f"accuracy           {figures['accuracy']:.2%}   "
            f"(balanced {figures['balanced_accuracy']:.2%})"
        )
    shares = (("subset_accuracy", "all labels right"), ("mean_average_precision", "mean av. prec."))
    lines += [f"{title:<18} {figures[name]:.2%}" for name, title in shares if figures.get(name)]
    errors = [(name, figures.get(name)) for name in ("mae", "rmse", "r2")]
    if told := [f"{name.upper()} {value:.4g}" for name, value in errors if value is not None]:
        lines.append(f"errors             {', '.join(told)}")
    return [*lines, f"predictions        {figures['file']}"]


COMMAND = ConfigCommand(
    config=PredictConfig,
    function="sixfold.prediction.run:predict",
    summary=summary,
    words={"run": ("RUN", "run directory")},
)
options, run = COMMAND.options, COMMAND.run
