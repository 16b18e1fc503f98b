"""`sixfold report`."""

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.console.command import ReportKind
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.run_directory import read_json, read_whole_json
from sixfold.core.run_store import local_run, publish_file


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_word", nargs="?", metavar="RUN", help="run directory")


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Write the report of a run again, finished or not."""
    if not arguments.run_word:
        problems = [*problems, "give the run directory: sixfold report RUN"]
    raise_problems(problems)
    place = arguments.run_word
    page = rewrite_report(local_run(place, record=True))
    print(publish_file(place, page))
    return 0


def rewrite_report(run: Path) -> Path:
    """Write the report of a run again, finished or not, as the command that made it registers it.

    A `UserError` if there is none whose report can be made from what it keeps; nothing is written
    then.
    """
    run = run.expanduser().absolute()
    config, result = (
        read_whole_json(run / "config.json"),
        read_whole_json(run / "result.json") or {},
    )
    kind = next((kind for kind in _kinds() if _fits(kind, run, config, result)), None)
    if "identity" in result:
        raise UserError(f"{run} holds a member of a job: give the directory of the job")
    if kind is None:
        reason = (
            "is no run directory: it holds no config.json"
            if config is None
            else "holds a config.json of no run whose report can be written again"
        )
        raise UserError(f"{run} {reason}")
    if kind.write is None:
        raise UserError(f"{run} holds {kind.noun}: {kind.remedy}")
    # The page of an unfinished run says of a damaged result that it is damaged.
    read = read_json if kind.unfinished else read_whole_json
    figures = read(run / kind.figures)
    if figures is None and not kind.unfinished:
        raise UserError(f"{run} holds {kind.noun} that is not finished: {kind.remedy}")
    kind.write(run, config, figures)
    return run / kind.page


def _kinds() -> list[ReportKind]:
    """What all commands have registered.

    Those come first that one section tells: others have the sections of a training, too.
    """
    from sixfold.cli import COMMANDS

    modules = [importlib.import_module(f"{one.package}.command") for one in COMMANDS.values()]
    kinds = [kind for module in modules for kind in getattr(module, "REPORTS", ())]
    return sorted(kinds, key=lambda kind: len(kind.sections))


def _fits(
    kind: ReportKind, run: Path, config: Mapping[str, Any] | None, result: Mapping[str, Any]
) -> bool:
    if kind.sections:
        return config is not None and config.keys() >= set(kind.sections)
    if kind.what:
        return result.get("what") == kind.what
    return config is None and (run / kind.figures).exists()
