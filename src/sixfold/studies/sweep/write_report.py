"""The report of a sweep of any kind, from its settings and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sixfold.studies.sweep import delay_report, report
from sixfold.studies.sweep.config import SweepQualityConfig, SweepTimeConfig


def write_report(path: Path, config: dict[str, Any], result: dict[str, Any]) -> None:
    """Write the report of a sweep of any kind."""
    if result["what"] == "delay":
        delay_report.write_page(path, config, result)
        return
    tree = SweepTimeConfig if result["what"] == "time" else SweepQualityConfig
    report.write_page(path, config, result, tree)
