"""A study's findings as one HTML file: verdict, plots, tables, and what ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sixfold.core.html.page import Page, Section, Text, pairs
from sixfold.studies.lab.findings import Findings


def render(findings: Findings, record: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        findings: of the study.
        record: facts of the run, as in its JSON.
    """
    settings = [
        f"{name}={value}"
        for values in record["settings"].values()
        for name, value in values.items()
    ]
    ran = [
        ("Settings", " ".join(settings)),
        ("Machine", str(record["machine"])),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        ),
    ]
    return Page(
        title=f"sixfold lab {record['study']}",
        eyebrow="Sixfold laboratory",
        heading=findings.title,
        state="all results right" if findings.right else "a result is wrong",
        good=findings.right,
        subtitle=f"{findings.subtitle} · {record['master']}, {record['slots']} slots · load "
        f"average before {record['load_average']['before'][0]:.1f}",
        notes=findings.notes,
        sections=[
            Section(title="What wins, and why", blocks=[Text(lines=findings.verdict)]),
            Section(blocks=[*findings.bars, *findings.charts]),
            Section(title="Figures", blocks=findings.tables),
            Section(title="What ran", blocks=[pairs(ran)]),
        ],
        files=f"{record['study']}.json next to it holds every figure.",
    ).html()
