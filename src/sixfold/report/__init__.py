"""The report of a run: one HTML file, made from what the run directory holds."""

from __future__ import annotations

from sixfold.report.page import style, write_report

__all__ = ["style", "write_report"]
