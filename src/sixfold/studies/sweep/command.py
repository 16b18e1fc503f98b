"""`sixfold sweep time`, `quality`, `delay` and `roofline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sixfold.core.console.command import ConfigCommand, ModeCommand
from sixfold.studies.sweep.config import (
    SweepDelayConfig,
    SweepQualityConfig,
    SweepRooflineConfig,
    SweepTimeConfig,
)

MODES = {
    "time": "time every combination of settings; speed-up, efficiency, and the laws they follow",
    "quality": "train every combination of settings; accuracy, and what each setting does to it",
    "delay": "measure what Spark adds to jobs of many sizes, from its own events, and fit laws",
    "roofline": "the ceiling that Spark's delays put over the machine, and what was measured on it",
}


def roofline_lines(result: Mapping[str, Any]) -> list[str]:
    """The roofs, and what was placed beside them."""
    from sixfold.studies.sweep.roofline_report import flops

    lines = []
    for panel in result["panels"]:
        for roof in panel["roofs"]:
            peak = flops(roof["workers"] * roof["peak_flops"])
            told = f"{roof['workers']} workers, {roof['name']}: at most {peak}FLOP/s"
            if roof["overhead_s"]:
                told += (
                    f"; {1000 * roof['overhead_s']:.0f} ms a job, half of it all at tasks of "
                    f"{flops(roof['ridge_flops'])}FLOP"
                )
            lines.append(told)
        for point in panel["points"]:
            lines.append(
                f"  {point['group']}, {point['name']}: {flops(point['flops'])}FLOP/s in tasks of "
                f"{flops(point['task_flops'])}FLOP, {point['part_of_machine']:.1%} of the machine, "
                f"{point['times_spark']:.3g} times the ceiling of jobs"
            )
    return [*lines, *result["left_out"], f"report  {result['report']}"]


def delay_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a sweep over delays, and its laws; times in milliseconds."""
    lines = [
        f"{'payload':<16}{'workers':>8}{'tasks':>6}{'job (driver)':>14}{'(range)':>18}"
        f"{'delay':>8}  of a task"
    ]
    for row in result["points"]:
        wall, size = row["wall_s"], row["payload_bytes"]
        name = f"{row['kind']} {_size(size)}" if size else row["kind"]
        span = f"({1000 * wall['least']:.0f}-{1000 * wall['most']:.0f})"
        lines.append(
            f"{name:<16}{row['workers']:>8}{row['tasks']:>6}{1000 * wall['median']:>14.1f}"
            f"{span:>18}{1000 * row['delay_s']['median']:>8.1f}  {_parts(row['parts'])}"
        )
    for law in result["laws"]:
        at = {"payload": law["kind"], "of": law["outcome"]}
        lines.append(_law({**law, "values": at}))
    return [*lines, f"report  {result['report']}"]


def _size(size: int) -> str:
    from sixfold.studies.sweep.delay_plan import written

    return written(size)


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


COMMAND = ModeCommand(
    about=MODES,
    missing="say what to sweep over: "
    + "; ".join(f"sixfold sweep {name}: {what}" for name, what in MODES.items()),
    modes={
        "time": ConfigCommand(
            config=SweepTimeConfig,
            function="sixfold.studies.sweep.run:sweep_time",
            summary=time_lines,
        ),
        "quality": ConfigCommand(
            config=SweepQualityConfig,
            function="sixfold.studies.sweep.run:sweep_quality",
            summary=quality_lines,
        ),
        "delay": ConfigCommand(
            config=SweepDelayConfig,
            function="sixfold.studies.sweep.delay_run:sweep_delay",
            summary=delay_lines,
        ),
        "roofline": ConfigCommand(
            config=SweepRooflineConfig,
            function="sixfold.studies.sweep.roofline_run:sweep_roofline",
            summary=roofline_lines,
            events=False,
        ),
    },
)
options, run = COMMAND.options, COMMAND.run
