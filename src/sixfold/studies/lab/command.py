"""`sixfold lab`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.core.errors import UserError
from sixfold.studies.lab import NAMES
from sixfold.studies.lab.config import CONFIGS


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every study: every field of its configuration."""
    studies = parser.add_subparsers(dest="study", metavar="|".join(NAMES))
    for name, what in NAMES.items():
        study = studies.add_parser(name, description=what, help=what, allow_abbrev=False)
        study.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or JSON")
        add_options(study, CONFIGS[name])


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Run a study, and show what it found."""
    if arguments.study is None:
        known = ", ".join(NAMES)
        raise UserError([*problems, f"say what to study: sixfold lab STUDY, of {known}"])
    config, unread = read_config(CONFIGS[arguments.study], vars(arguments), arguments.config)
    refuse(config, [*problems, *unread])
    from sixfold.studies import lab

    return lab.run(arguments.study, config, show=lambda line: print(line, flush=True))
