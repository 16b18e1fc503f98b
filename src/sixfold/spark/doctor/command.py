"""`sixfold doctor`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand
from sixfold.spark.doctor.config import DoctorConfig
from sixfold.spark.doctor.findings import Finding, lines


def summary(result: dict[str, Any]) -> list[str]:
    """What was found, a line each, and the verdict."""
    return lines([Finding(**finding) for finding in result["findings"]])


COMMAND = ConfigCommand(
    config=DoctorConfig,
    function="sixfold.spark.doctor.run:doctor",
    summary=summary,
    events=False,
    failed=lambda result: bool(result["wrong"]),
)
options, run = COMMAND.options, COMMAND.run
