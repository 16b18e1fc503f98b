"""A command whose options are the fields of a configuration: read, refuse, run, show."""

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, naming_file, read_config, refuse
from sixfold.core.errors import UserError
from sixfold.core.lazy import lazily


@dataclass(frozen=True, kw_only=True)
class ReportKind:
    """How `sixfold report` writes the page of a command's runs again; in `REPORTS` of a command."""

    noun: str  # what the run is, such as "a sweep"
    # Sections of `config.json` that tell such a run; without any, the file of its figures does.
    sections: tuple[str, ...] = ()
    figures: str = "result.json"  # the file of its figures
    what: str = ""  # that its figures say they are
    page: str = "report.html"
    # Writes the page, from directory, settings and figures; None if that takes more than these.
    write: Callable[[Path, Any, Any], Any] | None = None
    unfinished: bool = False  # whether a run without figures has a page, too
    remedy: str = "go on with --resume"  # where there is none


@dataclass(frozen=True, kw_only=True)
class ConfigCommand:
    """One command, or one mode of a command."""

    config: type[Any]
    # As for `lazily`, called when the settings could be read: with the configuration, and with
    # `on_event` where it reports progress.
    function: str
    # The closing lines, from what the function returns.
    summary: Callable[[Any], Iterable[str]]
    # Settings that may be given by their place: field -> its name in the usage, and its help.
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    # Whether the function reports progress.
    events: bool = True
    # Whether what the function returns is a failure: exit code 1.
    failed: Callable[[Any], bool] = lambda _: False

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options: every field of the configuration."""
        for name, (metavar, text) in self.words.items():
            parser.add_argument(f"{name}_word", nargs="?", metavar=metavar, help=text)
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or JSON")
        add_options(parser, self.config)

    def read(self, values: dict[str, Any], problems: list[str]) -> Any:
        """The configuration, or a `UserError` with all that is wrong."""
        for name in self.words:
            values[name] = values[name] or values[f"{name}_word"]
        config, unread = read_config(self.config, values, values["config"])
        refuse(config, [*problems, *unread])
        return config

    def run(self, arguments: argparse.Namespace, problems: list[str]) -> int:
        """Run the command, showing its progress, and print the closing lines."""
        values = vars(arguments)
        try:
            config = self.read(values, problems)
            with Console() as console:
                events = {"on_event": console} if self.events else {}
                result = lazily(self.function)(config, **events)
        except UserError as error:
            raise naming_file(error, values, values["config"]) from error
        print("\n".join(self.summary(result)))
        return int(self.failed(result))


@dataclass(frozen=True, kw_only=True)
class ModeCommand:
    """A command of several modes, each with its own options."""

    modes: Mapping[str, ConfigCommand]
    # What each mode does, for the help.
    about: Mapping[str, str]
    # What is said where no mode is given.
    missing: str

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of all modes."""
        modes = parser.add_subparsers(dest="mode", metavar="|".join(self.modes))
        for name, command in self.modes.items():
            text = self.about[name]
            command.options(modes.add_parser(name, description=text, help=text, allow_abbrev=False))

    def run(self, arguments: argparse.Namespace, problems: list[str]) -> int:
        """Run the mode that was asked for."""
        if arguments.mode is None:
            raise UserError([*problems, self.missing])
        return self.modes[arguments.mode].run(arguments, problems)
