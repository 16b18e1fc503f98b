"""`sixfold bench`."""

from __future__ import annotations

import argparse

from benchmarks.bench import NAMES, BenchConfig
from sixfold.core.checks import unknown
from sixfold.core.console.options import add_options, read_config, refuse


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration, the benchmark by its place."""
    known = "; ".join(f"{name}: {what}" for name, what in NAMES.items())
    parser.add_argument("name_word", nargs="?", metavar="NAME", help=known)
    add_options(parser, BenchConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Measure, and show the table."""
    config, unread = read_config(BenchConfig, vars(arguments))
    if not arguments.name_word:
        problems = [
            *problems,
            f"give the benchmark's name, of {', '.join(NAMES)}",
        ]
    elif arguments.name_word not in NAMES:
        problems = [*problems, unknown("benchmark", arguments.name_word, NAMES)]
    refuse(config, [*problems, *unread])
    from benchmarks import bench

    return bench.run(arguments.name_word, config, show=lambda line: print(line, flush=True))
