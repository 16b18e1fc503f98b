"""The report of a run: one HTML file, made from what the run directory holds."""

from sixfold.core.html.frame import optional_page
from sixfold.training.report.page import write_report

__all__ = ["optional_page", "write_report"]
