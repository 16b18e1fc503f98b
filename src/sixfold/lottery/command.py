"""`sixfold tickets`."""

from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.core.lazy import lazily
from sixfold.lottery.config import TicketsConfig

COMMAND = ConfigCommand(
    config=TicketsConfig,
    function="sixfold.lottery.run:tickets",
    summary=lazily("sixfold.lottery.report:ticket_lines"),
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a search for tickets",
        sections=("trellis",),
        write=lazily("sixfold.lottery.report:write_page"),
    ),
)
