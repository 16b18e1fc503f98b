"""`sixfold compress`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sixfold.compression.config import CompressConfig
from sixfold.core.console.console import Console
from sixfold.core.console.options import add_options, read_config, refuse

_STAGES = {"prune": "pruned", "share": "weights shared", "code": "coded"}


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration, the run by its place."""
    parser.add_argument("run_word", nargs="?", metavar="RUN", help="run directory")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or JSON")
    add_options(parser, CompressConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Compress, and print what each stage left."""
    values = vars(arguments)
    values["run"] = values["run"] or values["run_word"]
    config, unread = read_config(CompressConfig, values, arguments.config)
    refuse(config, [*problems, *unread])
    from sixfold.compression.run import compress

    with Console() as console:
        result = compress(config, on_event=console)
    print("\n".join(summary(result)))
    return 0


def summary(result: dict[str, Any]) -> list[str]:
    """The closing lines of a compression."""
    lines = [f"{'':<16} {'bytes':>13} {'ratio':>7}  {'test error':>10}  {'validation':>10}"]
    for name, row in [("dense", result["dense"]), *((s["stage"], s) for s in result["stages"])]:
        ratio = f"{row['ratio']:.1f}x" if "ratio" in row else ""
        lines.append(
            f"{_STAGES.get(name, name):<16} {row['bytes']:>13,} {ratio:>7}  "
            f"{_error(row, 'test'):>10}  {_error(row, 'validation'):>10}"
        )
    for name in ("sparsity", "bits"):
        if result[name]:
            lines.append(f"{name:<16} {result[name]}")
    lines += [
        f"model            {Path(result['report']).with_name('model.sixz')}",
        f"report           {result['report']}",
    ]
    return lines


def _error(row: dict[str, Any], part: str) -> str:
    accuracy = row.get(f"{part}_accuracy")
    return "" if accuracy is None else f"{1 - accuracy:.2%}"
