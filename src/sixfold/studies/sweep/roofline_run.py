"""The launcher of Spark's roofline: from results on disk to a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.files import make_folder, write_json
from sixfold.core.run_directory import RunDirectory
from sixfold.core.version import versions
from sixfold.studies.sweep.config import SweepRooflineConfig
from sixfold.studies.sweep.roofline import Placed, curve_places, place, roofs
from sixfold.studies.sweep.roofline_points import placed_in, read_result, result_files
from sixfold.studies.sweep.roofline_report import write_page
from sixfold.training.report import optional_page


def sweep_roofline(config: SweepRooflineConfig) -> dict[str, Any]:
    """Place what was measured on the roofs of the machine and of Spark.

    Returns:
        What `result.json` holds.

    Raises:
        UserError: if a result or a file cannot be read.
    """
    from sixfold.perf.profile import load_machine, measure_machine

    asked = config.roofline
    if found := config.problems():
        raise UserError(found)
    source = Path(asked.delay).expanduser().absolute()
    delay = read_result(source / "result.json" if source.is_dir() else source)
    if not isinstance(delay, dict) or delay.get("what") != "delay":
        raise UserError(f"--delay {asked.delay}: is no result of `sixfold sweep delay`")
    out = Path(asked.out).expanduser().absolute() if asked.out else source / "roofline"
    if RunDirectory(out).holds_a_run():
        raise UserError(
            f"--out {out}: holds a run, whose result and report would be lost: choose another "
            "directory"
        )
    points, left_out = _points(asked.placed, asked.trust_model)
    machine = (
        load_machine(Path(asked.machine_peaks).expanduser())
        if asked.machine_peaks
        else measure_machine(precisions=(asked.precision,))
    )
    workers = sorted(
        {session["workers"] for session in delay["sessions"]} | {point.workers for point in points}
    )
    panels = []
    for n in workers:
        own = [point for point in points if point.workers == n]
        panels.append(_panel(delay, n, machine.peak_flops(n, asked.precision), own))
    result = {
        "what": "roofline",
        "delay": str(source),
        "sessions": delay["sessions"],
        "machine": {"processor": machine.processor, "cores": machine.cores},
        "precision": asked.precision,
        "panels": panels,
        "left_out": left_out,
        "versions": versions(),
        "report": str(out / "report.html"),
    }
    make_folder(out)
    write_json(out / "result.json", result)
    with optional_page(out / "report.html"):
        write_page(out / "report.html", result)
    return result


def _points(text: str, trust: bool) -> tuple[list[Placed], list[str]]:
    """What is to be placed; and which files hold nothing that can be.

    Raises:
        UserError: with every directory that holds no result.
    """
    found: list[Placed] = []
    left_out: list[str] = []
    problems: list[str] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            for file in result_files(Path(word).expanduser().absolute()):
                own = placed_in(file, trust=trust)
                found += own
                if not own:
                    left_out.append(f"{file} holds no operations and times of tasks")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return found, left_out


def _panel(
    delay: dict[str, Any], workers: int, peak_flops: float, points: Sequence[Placed]
) -> dict[str, Any]:
    """The roofs of one number of workers, and the points beneath."""
    shuffled = {row["moved_bytes"] for row in delay["points"] if row["kind"] == "shuffle"}
    own = roofs(delay, workers, peak_flops, sorted(shuffled))
    at = curve_places(own, points)
    machine, spark = own[0], own[1]
    return {
        "workers": workers,
        "task_flops": at,
        "roofs": [
            roof.plain() | {"flops": [roof.attainable_flops(value) for value in at]} for roof in own
        ],
        "points": [place(point, delay, spark, machine) for point in points],
    }
