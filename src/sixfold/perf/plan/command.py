"""`sixfold plan`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.perf.plan.config import PlanConfig


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or JSON")
    add_options(parser, PlanConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Measure, predict, and show the table."""
    config, unread = read_config(PlanConfig, vars(arguments), arguments.config)
    refuse(config, [*problems, *unread])
    from sixfold.perf.plan.run import plan

    with Console() as console:
        found = plan(config, on_event=console)
    print("\n".join(found.text()))
    return 0
