"""`sixfold train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sixfold.cli.console import Console
from sixfold.cli.options import add_options, build_config
from sixfold.config import TrainConfig
from sixfold.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or JSON")
    add_options(parser, TrainConfig)


def check(arguments: argparse.Namespace) -> list[str]:
    """What is wrong with the options that were understood."""
    from sixfold import validate

    try:
        return validate.problems(build_config(TrainConfig, vars(arguments), arguments.config))
    except UserError as error:
        return list(error.problems)


def run(arguments: argparse.Namespace) -> int:
    """Train, and print where the results are."""
    config = build_config(TrainConfig, vars(arguments), arguments.config)
    from sixfold.launch import train

    console = Console()
    try:
        result = train(config, listen=console)
    finally:
        console.close()
    print("\n".join(summary(result)))
    return 0


def summary(result: dict[str, Any]) -> list[str]:
    """The closing lines of a training."""
    speed = result.get("train_images_per_s")
    balanced = result.get("balanced_accuracy")
    lines = [
        f"test accuracy      {result['test_accuracy']:.2%}"
        + (f"   (balanced {balanced:.2%})" if balanced is not None else ""),
        f"test loss          {result['test_loss']:.4f}",
        f"steps, epochs      {result['steps']}, {result['epochs']:g}",
    ]
    if speed is not None:
        lines.append(
            f"training           {speed:,.0f} images/s on {result['workers']} workers "
            f"({result['engine']}, {result['strategy']})"
        )
    lines += [
        f"wall time          {result['wall_s']:.1f} s, start-up {result['startup_s']:.1f} s of it",
        f"weights            sha256 {result['weights_sha256']}",
    ]
    if result["restarts"]:
        lines.append(f"restarts           {result['restarts']}")
    if result.get("bad_files"):
        lines.append(f"skipped images     {len(result['bad_files'])} (listed in result.json)")
    return [*lines, f"report             {result['report']}"]
