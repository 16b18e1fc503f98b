"""A command whose options are the fields of a configuration: read, refuse, run, show."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ConfigCommand:
    """One command, or one mode of a command."""

    config: type[Any]
    # ``package.module:function``, imported when the settings could be read; called with the
    # configuration, and with `on_event` where it reports progress.
    function: str
    # The closing lines, from what the function returns.
    summary: Callable[[Any], Iterable[str]]
    # Settings that may be given by their place: field -> its name in the usage, and its help.
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    # Whether the function reports progress.
    events: bool = True

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
        config = self.read(vars(arguments), problems)
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        with Console() as console:
            result = function(config, **({"on_event": console} if self.events else {}))
        print("\n".join(self.summary(result)))
        return 0


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
