"""`sixfold report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sixfold.core.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_word", nargs="?", metavar="RUN", help="run directory")


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Write the report of a run again, finished or not."""
    if not arguments.run_word:
        problems = [*problems, "give the run directory: sixfold report RUN"]
    if problems:
        raise UserError(problems)
    from sixfold.studies.report.rewrite import rewrite_report

    print(rewrite_report(Path(arguments.run_word)))
    return 0
