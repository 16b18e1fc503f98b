"""`sixfold completion`: the script that makes a shell complete commands, options and choices."""

import argparse
import importlib

from sixfold.core.console.options import Parser
from sixfold.core.errors import raise_problems

SHELLS = {
    "bash": "~/.local/share/bash-completion/completions/sixfold",
    "zsh": "_sixfold in a folder of $fpath",
}
# Options and words whose values are files or folders.
_PATHS = {"config", "destination", "mask", "onnx", "out", "run", "source", "transfer", "tuning"}
_PATHS |= {"weights", "write_schema"}


def options(parser: argparse.ArgumentParser) -> None:
    """Declare which shell."""
    parser.add_argument(
        "shell", choices=list(SHELLS), nargs="?", help=f"write its output to {_places()}"
    )


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Print the script."""
    if arguments.shell is None:
        problems.append(f"which shell? `sixfold completion {'|'.join(SHELLS)} > FILE`; {_places()}")
    raise_problems(problems)
    import shtab

    print(shtab.complete(whole_parser(), shell=arguments.shell))
    return 0


def whole_parser() -> Parser:
    """One parser of every command, where the dispatcher makes only the one that is asked for."""
    from sixfold.cli import COMMANDS

    root = Parser(prog="sixfold")
    commands = root.add_subparsers(parser_class=Parser)
    for name, (package, what) in COMMANDS.items():
        parser = commands.add_parser(name, help=what, allow_abbrev=False)
        importlib.import_module(f"{package}.command").options(parser)
        _complete_values(parser)
    return root


def _complete_values(parser: argparse.ArgumentParser) -> None:
    """Give the shell files, or the words that an option's help shows as `one|other`."""
    import shtab

    for action in parser._actions:
        if isinstance(action.choices, dict):
            for mode in action.choices.values():
                _complete_values(mode)
        elif action.dest.removesuffix("_word") in _PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif isinstance(action.metavar, str) and action.metavar == action.metavar.lower():
            action.choices = action.metavar.split("|")


def _places() -> str:
    return "; ".join(f"{shell}: {place}" for shell, place in SHELLS.items())
