"""Writing the page of a run again, by whichever command made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sixfold.core.errors import SixfoldError, UserError
from sixfold.core.html.pictures import Images
from sixfold.core.run_directory import read_json
from sixfold.data.config import DataConfig
from sixfold.data.paths import is_url

Plain = dict[str, Any]


def rewrite_report(run: Path) -> Path:
    """Write the report of a run again, finished or not, as the command that made it would.

    Raises:
        UserError: if there is no run, or none whose report can be made from what it keeps; nothing
            is written then.
    """
    run = run.expanduser().absolute()
    config = read_json(run / "config.json")
    if config is None:
        return _rewrite_without_settings(run)
    if "identity" in (read_json(run / "result.json") or {}):
        raise UserError(f"{run} holds a member of a job: give the directory of the job")
    for section, (what, rewrite) in _KINDS.items():
        if section in config:
            result = read_json(run / "result.json")
            if result is None:
                raise UserError(f"{run} holds {what} that is not finished: go on with --resume")
            return rewrite(run, config, result)
    if "profiling" in config:
        return _rewrite_profile(run)
    if "distortion" in config:
        raise UserError(f"{run} holds an evaluation: `sixfold evaluate` writes its report anew")
    if "dictionary" in config:
        from sixfold.lca.report import write_page

        return write_page(run)
    if not {"training", "model", "data"} <= config.keys():
        raise UserError(f"{run}: its config.json is of no run whose report can be written again")
    from sixfold.training.report import write_report

    return write_report(run, images=images_of(config))


def _rewrite_compression(run: Path, config: Plain, result: Plain) -> Path:  # noqa: ARG001
    from sixfold.compression.report import write_page

    path = run / "report.html"
    write_page(path, result)
    return path


def _rewrite_sweep(run: Path, config: Plain, result: Plain) -> Path:
    from sixfold.studies.sweep.write_report import write_report as write_sweep_report

    path = run / "report.html"
    write_sweep_report(path, config, result)
    return path


def _rewrite_tickets(run: Path, config: Plain, result: Plain) -> Path:
    from sixfold.lottery.report import write_ticket_report

    write_ticket_report(run, config, result)
    return run / "report.html"


_KINDS: dict[str, tuple[str, Callable[[Path, Plain, Plain], Path]]] = {
    "compression": ("a compression", _rewrite_compression),
    "sweep": ("a sweep", _rewrite_sweep),
    "delay": ("a sweep", _rewrite_sweep),
    "trellis": ("a search for tickets", _rewrite_tickets),
}
"""A section of the settings that one kind of job alone has -> what it is, and its page."""


def _rewrite_profile(run: Path) -> Path:
    from sixfold.perf.profile.report import write_profile

    result = read_json(run / "profile.json")
    if result is None:
        raise UserError(f"{run} holds a profile that is not finished: profile again")
    write_profile(run, result)
    return run / "profile.html"


def _rewrite_without_settings(run: Path) -> Path:
    """The page of what has no `config.json`; most of it cannot be written again.

    Raises:
        UserError: that says what lies there.
    """
    result = read_json(run / "result.json") or {}
    if result.get("what") == "roofline":
        from sixfold.studies.sweep.roofline_report import write_page

        write_page(run / "report.html", result)
        return run / "report.html"
    for name in ("loopnest", "matmul", "activations", "job-per-step"):
        if (run / f"{name}.json").exists():
            raise UserError(f"{run} holds a study: `sixfold lab {name}` writes its page anew")
    if (run / "plan.json").exists():
        raise UserError(f"{run} holds a plan: `sixfold plan` writes its page anew")
    if "identity" in result:
        raise UserError(f"{run} holds a member of a job: give the directory of the job")
    raise UserError(f"{run} is no run directory: it holds no config.json")


def images_of(config: dict[str, Any]) -> Images | None:
    """The run's test images, or None where its data can no longer be opened, or lie at a URL."""
    from sixfold.data import open_data, resolve

    try:
        if is_url(config["data"]["data"]):  # a page needs no connection to wherever a file says
            return None
        return open_data(resolve(DataConfig(**config["data"]))).test.images
    except (SixfoldError, KeyError, TypeError):
        return None
