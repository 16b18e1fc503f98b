"""The report of a run: one HTML file, made from what the run directory holds."""

from __future__ import annotations

from sixfold.report.furniture import furniture, style, template
from sixfold.report.page import write_report

__all__ = ["furniture", "style", "template", "write_report"]
