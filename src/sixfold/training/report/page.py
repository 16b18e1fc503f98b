"""Make a run's report: one HTML file that needs no other file and no network."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, plain
from sixfold.core.html.json_lines import label, number
from sixfold.core.html.page import Card, Page, Section, Text, configuration, pairs
from sixfold.core.html.pictures import Images, mistakes
from sixfold.core.run_store import local_run
from sixfold.training.config import TrainConfig
from sixfold.training.report.classes import class_section
from sixfold.training.report.curves import learning_charts, throughput_chart
from sixfold.training.report.headline import headline, subtitle
from sixfold.training.report.merging import merge_section
from sixfold.training.report.predictions import predictions_section
from sixfold.training.report.record import Record, read_record
from sixfold.training.report.steptime import step_time

MAX_BAD_FILES = 200  # skipped files that are listed; `result.json` has all


def write_report(run_dir: Path, *, images: Images | None = None) -> Path:
    """Write `report.html` into a run directory, from what is in it.

    Whatever is absent or damaged is named in the report and left out of it. `images` gives test
    images (n, C, H, W), uint8, by their indices, for the sheet of the worst mistakes; None leaves
    the pictures out. A `UserError` if it is no run directory, a `RunError` if the file cannot be
    written.
    """
    path = run_dir / "report.html"
    write_atomically(path, render(read_record(run_dir), images).encode())
    return path


def render(record: Record, images: Images | None) -> str:
    """The page as text."""
    return build(record, images).html()


def build(record: Record, images: Images | None = None) -> Page:
    """The page; `record.notes` grows by what is missing."""
    notes = record.notes
    classes = class_section(record.result, notes)
    names = [one.name for one in classes.every] if classes else []
    wrong = mistakes(record.result, names, images, notes)
    merging, time = merge_section(record), step_time(record.timelines)
    predictions = predictions_section(record)
    throughput = throughput_chart(record)
    facts = pairs(_facts(record.result), "Run")
    sections = [
        Section(
            id="learning",
            title="Learning",
            lead="Training values are of each step's own batch, before its update; evaluations "
            "are of the whole split.",
            css="grid",
            blocks=learning_charts(record),
        ),
        *([merging.section()] if merging else []),
        *([classes.section()] if classes else []),
        *([predictions] if predictions else []),
        Section(
            id="mistakes",
            title="Worst mistakes",
            lead="The misclassified test images of which the network was most sure: true class, "
            "class it saw, and its confidence.",
            blocks=[wrong] if wrong else [],
            frame=False,
        ),
        Section(
            id="time",
            title="Where the time went",
            lead=time.verdict if time else "",
            blocks=[*(time.blocks() if time else []), *([throughput] if throughput else [])],
        ),
        configuration(record.config, TrainConfig, _versions(record.result), facts),
        *_skipped_files(record.result),
    ]
    return Page(
        title=f"{record.name} · Sixfold",
        eyebrow="Sixfold training report",
        heading=record.name,
        state="finished" if record.finished else "not finished",
        good=record.finished,
        subtitle=subtitle(record),
        notes=notes,
        figures=headline(record, classes.every if classes else []),
        sections=sections,
        navigation=True,
    )


def figures(run_dir: Path | str) -> dict[str, Any]:
    """The charts of a training's page as plotly figures, by name; a `UserError` if it is no run."""
    record = read_record(local_run(run_dir, record=True))
    return {chart.id: chart.figure() for chart in build(record).charts()}


def _skipped_files(result: Mapping[str, Any]) -> list[Section]:
    files = _strings(result.get("bad_files"))
    if not files:
        return []
    blocks = [Text(lines=files[:MAX_BAD_FILES], css="plain mono")]
    if len(files) > MAX_BAD_FILES:
        more = f"and {len(files) - MAX_BAD_FILES:,} more; result.json lists all."
        blocks.append(Text(lines=[more], css="legend"))
    lead = (
        "What could not be read, is hidden, or belongs to no class "
        f"({len(files):,} lines, {_skipped(result):,} images)."
    )
    section = Section(
        id="skipped", title="Left out of the data", lead=lead, blocks=[Card(blocks=blocks)]
    )
    return [section]


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
