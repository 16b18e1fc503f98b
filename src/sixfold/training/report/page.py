"""Make a run's report: one HTML file that needs no other file and no network.

Charts are drawn here as inline SVG and not with plotly: its script alone is 4.5 MB in every
report, takes most of a second to parse on a phone, draws nothing without JavaScript, knows one
colour scheme at a time, and prints a screen's pixels. The charts needed (lines, stacked bars, a
matrix) are a few hundred lines of geometry; the result is some 100-300 KB, opens at once, follows
light and dark by CSS, stays sharp in print, and needs forty lines of script for hover values only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, plain
from sixfold.core.html.frame import render_page
from sixfold.core.html.json_lines import label, number
from sixfold.core.html.pictures import Images, mistakes
from sixfold.core.html.settings import setting_sections
from sixfold.training.config import TrainConfig
from sixfold.training.report.classes import class_section
from sixfold.training.report.curves import learning_charts, throughput_chart
from sixfold.training.report.headline import headline, subtitle
from sixfold.training.report.merging import merge_section
from sixfold.training.report.record import Record, read_record
from sixfold.training.report.steptime import step_time

MAX_BAD_FILES = 200
"""Skipped files that are listed; `result.json` has all."""


def write_report(run_dir: Path, *, images: Images | None = None) -> Path:
    """Write `report.html` into a run directory, from what is in it.

    Whatever is absent or damaged is told in the report and left out of it.

    Args:
        run_dir: the run directory.
        images: gives test images (n, C, H, W), uint8, by their indices, for the sheet of the
            worst mistakes; None leaves the pictures out.

    Returns:
        The file's path.

    Raises:
        UserError: if `run_dir` is no run directory.
        RunError: if the file cannot be written.
    """
    record = read_record(run_dir)
    path = run_dir / "report.html"
    write_atomically(path, render(record, images).encode())
    return path


def render(record: Record, images: Images | None) -> str:
    """The page as text."""
    notes = record.notes
    classes = class_section(record.result, notes)
    names = classes.names if classes else []
    return render_page(
        __package__,
        "page.html",
        record=record,
        subtitle=subtitle(record),
        figures=headline(record, classes.every if classes else []),
        learning=learning_charts(record),
        classes=classes,
        mistakes=mistakes(record.result, names, images, notes),
        merging=merge_section(record),
        step_time=step_time(record.timelines),
        throughput=throughput_chart(record),
        sections=setting_sections(record.config, TrainConfig),
        versions=_versions(record.result),
        facts=_facts(record.result),
        bad_files=_strings(record.result.get("bad_files")),
        max_bad_files=MAX_BAD_FILES,
        skipped_images=_skipped(record.result),
        notes=notes,
    )


def _skipped(result: Mapping[str, Any]) -> int:
    """Images that were left out; a line of the list may speak of many."""
    count = number(result.get("skipped_images"))
    return int(count) if math.isfinite(count) else len(_strings(result.get("bad_files")))


def _strings(value: Any) -> list[str]:
    return [label(item) for item in value] if isinstance(value, list) else []


def _versions(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    value = result.get("versions")
    return [(label(k), label(v)) for k, v in value.items()] if isinstance(value, dict) else []


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures of the result that no other part of the report shows."""
    shown = []
    if isinstance(weights := result.get("weights_sha256"), str):
        shown.append(("Weights (SHA-256)", label(weights)))
    for name, title, write in (
        ("restarts", "Restarts", plain),
        ("startup_s", "Start-up", duration),
        ("engine_startup_s", "of it the engine's", duration),
        ("training_s", "Training, with evaluations", duration),
        ("logical_shards", "Logical shards a step", plain),
    ):
        if math.isfinite(value := number(result.get(name))):
            shown.append((title, write(value)))
    return shown
