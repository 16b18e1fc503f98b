"""`sixfold prepare`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand
from sixfold.data.config import PrepareConfig


def summary(made: dict[str, Any]) -> list[str]:
    """What was made."""
    parts = ", ".join(f"{count:,} {part}" for part, count in made["images"].items())
    lines = [
        f"images             {parts}",
        f"classes            {len(made['classes'])}",
        f"shape              {'x'.join(map(str, made['shape']))}",
    ]
    if made["pixels"]:
        lines.append(f"pixels             {made['pixels']}")
    if made["bad_files"]:
        images, told = made["skipped_images"], len(made["bad_files"])
        lines.append(f"left out           {images:,} images ({told} lines in manifest.json)")
    return [
        *lines,
        f"speed              {made['images_per_s']:,.0f} images/s, {made['wall_s']:.1f} s",
        f"use them with      --data shards:{made['destination']}",
    ]


COMMAND = ConfigCommand(
    config=PrepareConfig,
    function="sixfold.data.run:prepare",
    summary=summary,
    words={
        "source": ("SRC", "data specification"),
        "destination": ("DST", "folder for the shards"),
    },
)
options, run = COMMAND.options, COMMAND.run
