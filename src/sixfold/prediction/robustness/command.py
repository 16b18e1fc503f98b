"""`sixfold evaluate`."""

from collections.abc import Mapping
from typing import Any

from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.prediction.robustness.config import EvaluateConfig


def summary(result: Mapping[str, Any]) -> list[str]:
    """The closing lines: a table of accuracies, a line for every distortion."""
    clean = result["clean"]
    lines = [f"{'images':<34}{result['images']:,}", f"{'clean':<34}{_accuracy(clean)}"]
    for kind in result["distortions"]:
        for found in kind["strengths"]:
            gap = found["difference"]
            lines.append(
                f"{kind['kind']:<12}{found['strength']:<22g}"
                f"{_accuracy(found)}  {100 * gap['mean']:+6.2f} points"
            )
    if result["distortions"]:
        lines.append(f"{'mean under distortion':<34}{result['mean_distorted_accuracy']:.2%}")
    return [*lines, f"{'report':<34}{result['report']}"]


def _accuracy(found: Mapping[str, Any]) -> str:
    return f"{found['accuracy']:7.2%}  ({found['low']:.2%} to {found['high']:.2%})"


COMMAND = ConfigCommand(
    config=EvaluateConfig,
    function="sixfold.prediction.robustness.run:evaluate_robustness",
    summary=summary,
    words={"run": ("RUN", "run directory")},
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="an evaluation",
        sections=("distortion",),
        remedy="`sixfold evaluate` writes its report anew",
    ),
)
