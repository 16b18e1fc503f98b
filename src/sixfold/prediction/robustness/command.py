"""`sixfold evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.prediction.robustness.config import EvaluateConfig


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration, the run by its place."""
    parser.add_argument("run_word", nargs="?", metavar="RUN", help="run directory")
    add_options(parser, EvaluateConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Evaluate, and print the table."""
    values = vars(arguments)
    values["run"] = values["run"] or values["run_word"]
    config, unread = read_config(EvaluateConfig, values)
    refuse(config, [*problems, *unread])
    from sixfold.prediction.robustness.run import evaluate_robustness

    with Console() as console:
        result = evaluate_robustness(config, on_event=console)
    print("\n".join(summary(result)))
    return 0


def summary(result: Mapping[str, Any]) -> list[str]:
    """The closing lines: a table of accuracies, a line for every distortion."""
    clean = result["clean"]
    lines = [
        f"{'images':<34}{result['images']:,}",
        f"{'clean':<34}{_accuracy(clean)}",
    ]
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
