"""`sixfold plan`."""

from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.perf.plan.config import PlanConfig

COMMAND = ConfigCommand(
    config=PlanConfig, function="sixfold.perf.plan.run:plan", summary=lambda made: made.text()
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(noun="a plan", figures="plan.json", remedy="`sixfold plan` writes its page anew"),
)
