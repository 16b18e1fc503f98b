"""`sixfold lr-find`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand
from sixfold.training.lr_find.config import LrFindConfig


def summary(found: dict[str, Any]) -> list[str]:
    """The closing lines of a range test."""
    rates, chosen = found["rates"], found["suggested_lr"]
    told = "none: the loss never fell" if chosen is None else f"--lr {chosen:.2g}"
    return [
        f"suggested          {told}",
        f"tried              {rates[0]:.2g} to {rates[-1]:.2g} in {found['steps']} steps",
        f"report             {found['report']}",
    ]


COMMAND = ConfigCommand(
    config=LrFindConfig, function="sixfold.training.lr_find.run:lr_find", summary=summary
)
options, run = COMMAND.options, COMMAND.run
