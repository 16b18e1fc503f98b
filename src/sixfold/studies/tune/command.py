"""`sixfold tune`."""

from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.core.lazy import lazily
from sixfold.studies.tune.config import TuneConfig

COMMAND = ConfigCommand(
    config=TuneConfig,
    function="sixfold.studies.tune.run:tune",
    summary=lazily("sixfold.studies.tune.report:tune_lines"),
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a search", sections=("tune",), write=lazily("sixfold.studies.tune.report:write_page")
    ),
)
