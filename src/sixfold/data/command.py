"""`sixfold prepare`."""

from __future__ import annotations

import argparse

from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.data.config import PrepareConfig


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration, source and destination by place."""
    parser.add_argument("source_word", nargs="?", metavar="SRC", help="data specification")
    parser.add_argument("destination_word", nargs="?", metavar="DST", help="folder for the shards")
    add_options(parser, PrepareConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Prepare, and say what was made."""
    values = vars(arguments)
    values["source"] = values["source"] or values["source_word"]
    values["destination"] = values["destination"] or values["destination_word"]
    config, unread = read_config(PrepareConfig, values)
    refuse(config, [*problems, *unread])
    from sixfold.data.run import prepare

    with Console() as console:
        made = prepare(config, on_event=console)
    parts = ", ".join(f"{count:,} {part}" for part, count in made["images"].items())
    print(f"images             {parts}")
    print(f"classes            {len(made['classes'])}")
    print(f"shape              {'x'.join(map(str, made['shape']))}")
    if made["bad_files"]:
        images, lines = made["skipped_images"], len(made["bad_files"])
        print(f"left out           {images:,} images ({lines} lines in manifest.json)")
    print(f"speed              {made['images_per_s']:,.0f} images/s, {made['wall_s']:.1f} s")
    print(f"use them with      --data shards:{made['destination']}")
    return 0
