"""`sixfold profile`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.perf.profile.config import ProfileConfig


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: a run that is there, or every field of the configuration."""
    parser.add_argument(
        "run_word",
        nargs="?",
        metavar="RUN",
        help="directory of a training: only tell how its ranks used their time, and trace it",
    )
    add_options(parser, ProfileConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Measure, or read a run, and show the tables."""
    words = vars(arguments)
    given = [name for name, value in words.items() if value is not None and name != "debug"]
    given.remove("run_word") if "run_word" in given else None
    config, unread = read_config(ProfileConfig, words)
    if arguments.run_word is not None and given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        problems = [*problems, f"{flags}: a run is only read; leave RUN away to measure"]
    refuse(config, [*problems, *unread])
    from sixfold.perf.profile import run as launcher

    if arguments.run_word is not None:
        print("\n".join(summary(launcher.profile_of_run(Path(arguments.run_word).absolute()))))
        return 0
    with Console() as console:
        result = launcher.profile(config, on_event=console)
    print("\n".join(summary(result)))
    return 0


def summary(result: dict[str, Any]) -> list[str]:
    """What the terminal shows of a profile."""
    from sixfold.core.console.tables import aligned
    from sixfold.perf.profile import table

    blocks: list[list[str]] = []
    if result["kind"] == "beside":
        blocks.append(aligned(table.beside_rows(result)))
    if result["kind"] == "profile":
        blocks += [
            aligned(table.machine_rows(result["machine"])),
            table.layer_table(result),
            aligned(table.operator_rows(result, most=12), (0, 1)),
            table.step_table(result),
            aligned(table.memory_rows(result)),
        ]
    if "utilisation" in result:
        blocks += [table.use_table(result["utilisation"]), table.startup_lines(result["startup"])]
    lines = [line for block in blocks if block for line in [*block, ""]]
    lines += [f"note       {note}" for note in result.get("notes", [])]
    if result.get("images_per_s"):
        lines.append(f"training   {result['images_per_s']:,.0f} images/s, plain steps")
    if "trace" in result:
        lines.append(f"trace      {result['trace']} (open it in https://ui.perfetto.dev)")
    lines.append(f"figures    {result['path']}/profile.json")
    return [*lines, f"report     {result['path']}/profile.html"]
