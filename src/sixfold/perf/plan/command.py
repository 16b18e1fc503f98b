"""`sixfold plan`."""

from __future__ import annotations

from sixfold.core.console.command import ConfigCommand
from sixfold.perf.plan.config import PlanConfig

COMMAND = ConfigCommand(
    config=PlanConfig,
    function="sixfold.perf.plan.run:plan",
    summary=lambda made: made.text(),
)
options, run = COMMAND.options, COMMAND.run
