"""From a study's name and settings to its result: a table on the terminal, a JSON file, a page."""

from __future__ import annotations

import dataclasses
import importlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.files import write_atomically, write_json
from sixfold.core.locks import held
from sixfold.core.version import versions
from sixfold.studies.lab import NAMES
from sixfold.studies.lab.cluster import Cluster, open_cluster
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.report import render
from sixfold.training.report import optional_page

Show = Callable[[str], None]
Study = Callable[[Cluster, Any, Show], Findings]

WRONG = 1
"""Exit code where a result was wrong."""


def run_study(name: str, config: Any, *, show: Show) -> int:
    """Run a study, show what it found, and write it down; see `sixfold.studies.lab.run`."""
    study, problems = _parts(name)
    found = list(dict.fromkeys([*config.problems(), *problems(config)]))
    if found:
        raise UserError(found)
    out = Path(config.cluster.out or f"runs/lab-{name}").absolute()
    with held(out):
        return _run(name, config, study, out, show)


def _run(name: str, config: Any, study: Study, out: Path, show: Show) -> int:
    started = time.time()
    load_before = os.getloadavg()
    options = config.cluster
    with open_cluster(options.master, options.spark_conf, options.partitions) as cluster:
        findings = study(cluster, config, show)
        master, slots = cluster.master, cluster.slots
    record = {
        "study": name,
        "started": started,
        "seconds": round(time.time() - started, 1),
        "settings": dataclasses.asdict(config),
        "master": master,
        "slots": slots,
        "machine": platform.platform(),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "versions": versions(),
        "right": findings.right,
        "verdict": findings.verdict,
        "notes": findings.notes,
        **findings.data,
    }
    for line in told(findings):
        show(line)
    write_json(out / f"{name}.json", record)
    show(f"written: {out / f'{name}.json'}")
    with optional_page(page := out / f"{name}.html"):
        write_atomically(page, render(findings, record).encode())
        show(f"written: {page}")
    return 0 if findings.right else WRONG


def told(findings: Findings) -> list[str]:
    """What a person reads at the end."""
    lines: list[str] = []
    for table in findings.tables:
        lines += ["", *table.lines()]
    lines += ["", *findings.verdict]
    return [*lines, *(f"note: {note}" for note in findings.notes)]


def _parts(name: str) -> tuple[Study, Callable[[Any], list[str]]]:
    """The study of a name, and what finds the problems of its settings."""
    if name not in NAMES:
        raise UserError(f"unknown study {name!r}")
    folder = "jobs" if name == "job-per-step" else name
    module = importlib.import_module(f"sixfold.studies.lab.{folder}.study")
    return module.study, module.problems
