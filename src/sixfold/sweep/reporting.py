"""The report of a sweep of any kind, from its settings and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sixfold.sweep import delay_page, page
from sixfold.sweep.options import SweepQualityConfig, SweepTimeConfig


def write_report(path: Path, config: dict[str, Any], result: dict[str, Any]) -> None:
    """Write the report of a sweep of any kind.

    Args:
        path: of the file.
        config: settings as `config.json` holds them.
        result: figures.
    """
    if result["what"] == "delay":
        delay_page.write_page(path, config, result)
        return
    tree = SweepTimeConfig if result["what"] == "time" else SweepQualityConfig
    page.write_page(path, config, result, tree)
