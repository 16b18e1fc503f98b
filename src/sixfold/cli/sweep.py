"""`sixfold sweep time` and `sixfold sweep quality`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.cli.console import Console
from sixfold.cli.options import add_options, read_config
from sixfold.errors import UserError
from sixfold.sweep.options import SweepQualityConfig, SweepTimeConfig

MODES = {
    "time": "time every combination of settings; speed-up, efficiency, and the laws they follow",
    "quality": "train every combination of settings; accuracy, and what each setting does to it",
}


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of all modes: every field of their configurations."""
    modes = parser.add_subparsers(dest="mode", metavar="|".join(MODES))
    for name, tree in (("time", SweepTimeConfig), ("quality", SweepQualityConfig)):
        mode = modes.add_parser(name, description=MODES[name], allow_abbrev=False)
        mode.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or JSON")
        add_options(mode, tree)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Sweep, and print the table."""
    if arguments.mode is None:
        told = "; ".join(f"sixfold sweep {name}: {what}" for name, what in MODES.items())
        raise UserError([*problems, f"say what to sweep over: {told}"])
    values = vars(arguments)
    return _time(values, problems) if arguments.mode == "time" else _quality(values, problems)


def _time(values: dict[str, Any], problems: list[str]) -> int:
    config, unread = read_config(SweepTimeConfig, values, values["config"])
    from sixfold.launch.sweep import sweep_time, time_problems

    if problems or unread:
        raise UserError([*problems, *unread, *time_problems(config)])
    with Console() as console:
        result = sweep_time(config, listen=console)
    print("\n".join(time_lines(result)))
    return 0


def _quality(values: dict[str, Any], problems: list[str]) -> int:
    config, unread = read_config(SweepQualityConfig, values, values["config"])
    from sixfold.launch.sweep import quality_problems, sweep_quality

    if problems or unread:
        raise UserError([*problems, *unread, *quality_problems(config)])
    with Console() as console:
        result = sweep_quality(config, listen=console)
    print("\n".join(quality_lines(result)))
    return 0


def time_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a sweep over time, and its laws."""
    names = [_named(row) for row in result["points"]]
    wide = max(map(len, names), default=0)
    lines = [f"{'':<{wide}}  {'images/s':>9}  {'(range)':>17}  {'S':>5}  {'E':>5}  time of a step"]
    for name, row in zip(names, result["points"], strict=True):
        if "images_per_s" not in row:
            lines.append(f"{name:<{wide}}  {row['refused'] or 'failed'}")
            continue
        rate = row["images_per_s"]
        span = f"({rate['least']:,.0f}-{rate['most']:,.0f})"
        speed = f"{row['speedup']['median']:5.2f}" if "speedup" in row else "    -"
        part = f"{row['efficiency']['median']:5.0%}" if "efficiency" in row else "    -"
        lines.append(
            f"{name:<{wide}}  {rate['median']:>9,.0f}  {span:>17}  {speed}  {part}  "
            f"{1000 * row['step_s']['median']:.3g} ms: {_parts(row['parts'])}"
        )
    return [*lines, *(_law(law) for law in result["laws"]), f"report  {result['report']}"]


def _parts(parts: Mapping[str, float]) -> str:
    whole = sum(parts.values()) or 1.0
    large = sorted(parts.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {value / whole:.0%}" for name, value in large)


def _law(law: Mapping[str, Any]) -> str:
    at = " ".join(f"{name}={value}" for name, value in law["values"].items())
    if "serial_part" in law:
        part = law["serial_part"]
        told = f"serial part {part['value']:.3f}{_interval(part)}"
        if law.get("batch_per_worker"):
            at = f"{at} {law['batch_per_worker']} images per worker".strip()
    else:
        told = ", ".join(
            f"{one['name']} {one['value']:.3g}{_interval(one)}" for one in law["coefficients"]
        )
    error = law.get("held_out_error")
    if error is not None:
        told += f"; held-out error {error:.1%}"
    if law["exact"]:
        told += "; no more measurements than coefficients: says nothing of its own fit"
    return f"{law['law']}{' (' + at + ')' if at else ''}: {told}"


def _interval(value: Mapping[str, Any]) -> str:
    return "" if value["low"] is None else f" ({value['low']:.3g} to {value['high']:.3g})"


def quality_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a sweep over quality, and what each setting does."""
    lines = ["test accuracy, mean and 95% interval"]
    names = [_named(cell) for cell in result["cells"]]
    wide = max(map(len, names), default=0)
    for name, cell in zip(names, result["cells"], strict=True):
        value = cell["accuracy"]
        half = (value["high"] - value["low"]) / 2
        lines.append(f"{name:<{wide}}  {value['mean']:.2%} ± {half:.2%}  ({value['seeds']})")
    for row in result["trainings"]:
        for trouble in ("refused", "diverged"):
            if trouble in row:
                lines.append(f"{_named(row)}  {trouble}: {row[trouble]}")
    for effect in result["effects"]:
        share = effect["share_of_variance"]
        told = "" if share is None else f" ({share:.0%} of the variance)"
        lines.append(f"effect of {effect['name']}{told}")
        for level in effect["levels"]:
            if level["trainings"]:
                gap = level.get("difference")
                more = (
                    ""
                    if gap is None
                    else f"  {100 * gap['mean']:+.2f} points "
                    f"({100 * gap['low']:+.2f} to {100 * gap['high']:+.2f}, {gap['pairs']} pairs)"
                )
                lines.append(f"  {level['value']!s:<10} {level['accuracy']:.2%}{more}")
    return [*lines, f"report  {result['report']}"]


def _named(row: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in row["values"].items()) or "as given"
