"""The launcher of Spark's roofline: from results on disk to a page."""

import dataclasses
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.files import make_folder, write_json
from sixfold.core.html.frame import optional_page
from sixfold.core.run_directory import RunDirectory, typed
from sixfold.core.version import versions
from sixfold.studies.sweep.config import SweepRooflineConfig
from sixfold.studies.sweep.delay import DelayResult
from sixfold.studies.sweep.roofline import Placed, Processor, RooflineResult, panel
from sixfold.studies.sweep.roofline_points import placed_in, read_result, result_files
from sixfold.studies.sweep.roofline_report import write_page


def sweep_roofline(config: SweepRooflineConfig) -> dict[str, Any]:
    """Place measurements on the roofs of machine and Spark; what `result.json` holds."""
    from sixfold.perf.profile import load_machine, measure_machine

    asked = config.roofline
    raise_problems(config.problems())
    source = Path(asked.delay).expanduser().absolute()
    found = read_result(source / "result.json" if source.is_dir() else source)
    if not isinstance(found, dict) or found.get("what") != "delay":
        raise UserError(f"--delay {asked.delay}: is no result of `sixfold sweep delay`")
    out = Path(asked.out).expanduser().absolute() if asked.out else source / "roofline"
    if RunDirectory(out).holds_a_run():
        raise UserError(
            f"--out {out}: holds a run, whose result and report would be lost: choose another "
            "directory"
        )
    delay = typed(DelayResult, found)
    points, left_out = _points(asked.placed, asked.trust_model)
    machine = (
        load_machine(Path(asked.machine_peaks).expanduser())
        if asked.machine_peaks
        else measure_machine(precisions=(asked.precision,))
    )
    workers = {session.workers for session in delay.sessions} | {p.workers for p in points}
    made = RooflineResult(
        delay=str(source),
        sessions=delay.sessions,
        machine=Processor(processor=machine.processor, cores=machine.cores),
        precision=asked.precision,
        panels=[
            panel(
                delay,
                n,
                machine.peak_flops(n, asked.precision),
                [point for point in points if point.workers == n],
            )
            for n in sorted(workers)
        ],
        left_out=left_out,
        versions=versions(),
        report=str(out / "report.html"),
    )
    result = dataclasses.asdict(made)
    make_folder(out)
    write_json(out / "result.json", result)
    with optional_page(out / "report.html"):
        write_page(out, None, result)
    return result


def _points(text: str, trust: bool) -> tuple[list[Placed], list[str]]:
    """What is to be placed, and files that hold nothing such; a `UserError` without results."""
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
    raise_problems(problems)
    return found, left_out
