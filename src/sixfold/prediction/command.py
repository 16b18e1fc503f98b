"""`sixfold predict`."""

from __future__ import annotations

import argparse

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.prediction.config import PredictConfig


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration, the run by its place."""
    parser.add_argument("run_word", nargs="?", metavar="RUN", help="run directory")
    add_options(parser, PredictConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Predict, and print the accuracy where there are labels."""
    values = vars(arguments)
    values["run"] = values["run"] or values["run_word"]
    config, unread = read_config(PredictConfig, values)
    refuse(config, [*problems, *unread])
    from sixfold.prediction.run import predict

    with Console() as console:
        figures = predict(config, on_event=console)
    print(f"images             {figures['images']:,}")
    if "accuracy" in figures:
        print(
            f"accuracy           {figures['accuracy']:.2%}   "
            f"(balanced {figures['balanced_accuracy']:.2%})"
        )
    print(f"predictions        {figures['file']}")
    return 0
