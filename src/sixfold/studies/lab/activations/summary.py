"""What the measurements of two-stage steps amount to: a table, a plot, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.core.html.page import Bar, Bars, Table
from sixfold.studies.lab.cluster import Cost
from sixfold.studies.lab.findings import Findings, megabytes, percent, ratio, seconds, yes
from sixfold.studies.lab.long_lived import LongLived
from sixfold.studies.lab.problem import Problem

NAMES = {"same": "same worker", "driver": "driver", "file": "file store", "redis": "Redis"}
"""The ways, by the names that `--ways` takes."""


@dataclass(frozen=True, kw_only=True)
class Serial:
    """Forward and backward of all shards in one process on one thread."""

    forward_s: float  # all shards forward
    backward_s: float  # then all backward
    gradient_is_that_of_a_step: bool  # bit for bit


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """A way to keep activations."""

    way: str
    times_s: list[float]  # both stages, of every timed run
    forward: Cost  # of the forward stage in the median run
    backward: Cost  # of the backward stage
    total_s: float  # of both
    kernel_s: float  # time inside the network's kernels, over all tasks
    store_s: float  # time of encoding, keeping, fetching and decoding, over all tasks
    kept_bytes: int  # activations
    chunks: int  # in how many parts the step was made
    right: bool  # whether the gradient had the bits of the serial one, every time


@dataclass(frozen=True, kw_only=True)
class ActivationsResult:
    """What the study has measured."""

    long_lived: LongLived
    serial: Serial
    ways: list[MeasuredWay]


def tell(
    problem: Problem, base: LongLived, alone: Serial, measured: list[MeasuredWay], notes: list[str]
) -> Findings:
    """Findings of the study."""
    g = problem.geometry
    return Findings(
        title="Forward and backward as two stages",
        subtitle=f"{g.batch:,} images {g.channels}x{g.size[0]}x{g.size[1]}, the slide network's "
        f"layers with kernel {g.maps} {g.kernel[0]}x{g.kernel[1]}x{g.channels}",
        right=alone.gradient_is_that_of_a_step and all(one.right for one in measured),
        notes=notes,
        tables=[_table(base, alone, measured)],
        bars=[_bars(base, alone, measured)],
        verdict=_verdict(base, measured),
        result=ActivationsResult(long_lived=base, serial=alone, ways=measured),
    )


def _table(base: LongLived, alone: Serial, measured: list[MeasuredWay]) -> Table:
    total = alone.forward_s + alone.backward_s
    rows: list[tuple[str, ...]] = [
        ("long-lived job", "", "", seconds(base.step_s), "1x", *("0", "", "0", "", "")),
        (
            *("serial, one thread", seconds(alone.forward_s), seconds(alone.backward_s)),
            *(seconds(total), ratio(total / base.step_s), "0", "", "0", ""),
            yes(alone.gradient_is_that_of_a_step),
        ),
    ]
    for one in measured:
        rows.append(
            (
                NAMES[one.way],
                seconds(one.forward.wall_s) if one.forward.jobs else "",
                seconds(one.backward.wall_s) if one.forward.jobs else "",
                seconds(one.total_s),
                ratio(one.total_s / base.step_s),
                megabytes(one.kept_bytes),
                f"{one.chunks}",
                f"{one.forward.jobs + one.backward.jobs}",
                percent(one.kernel_s, one.forward.run_s + one.backward.run_s),
                yes(one.right),
            )
        )
    return Table(
        title="A step over all images",
        note="Kept: activations between the stages. Kernel: part of the tasks' time inside the "
        "network's kernels. Equal: the gradient has the bits of the serial one.",
        head=(
            *("activations in", "forward s", "backward s", "total s", "x long-lived"),
            *("kept MB", "chunks", "jobs", "kernel %", "equal"),
        ),
        rows=rows,
    )


def _bars(base: LongLived, alone: Serial, measured: list[MeasuredWay]) -> Bars:
    bars = [
        Bar(name="long-lived job", parts=((base.step_s, "update"),), text=f"{base.step_s:.3f} s"),
        Bar(
            name="serial, one thread",
            parts=((alone.forward_s, "compute"), (alone.backward_s, "communication")),
            text=f"{alone.forward_s + alone.backward_s:.3f} s",
        ),
    ]
    for one in sorted(measured, key=lambda way: way.total_s):
        parts: tuple[tuple[float, str], ...] = ((one.total_s, "update"),)
        if one.forward.jobs:
            parts = ((one.forward.wall_s, "compute"), (one.backward.wall_s, "communication"))
        bars.append(Bar(name=NAMES[one.way], parts=parts, text=f"{one.total_s:.3f} s"))
    return Bars(
        title="Time of a step",
        note="Median run.",
        bars=bars,
        keys=(("forward", "compute"), ("backward", "communication"), ("both at once", "update")),
    )


def _bar(name: str, *parts: tuple[float, str]) -> Bar:
    return Bar(name=name, parts=parts, text=f"{sum(value for value, _ in parts):.3f} s")


def _verdict(base: LongLived, measured: list[MeasuredWay]) -> list[str]:
    order = sorted(measured, key=lambda one: one.total_s)
    if not order:
        return []
    best = order[0]
    lines = [
        f"Of the ways that start jobs, {NAMES[best.way]} wins: {best.total_s:.2f} s, "
        f"{ratio(best.total_s / base.step_s)} the long-lived job ({base.step_s:.2f} s)."
    ]
    same = next((one for one in measured if one.way == "same"), None)
    for one in order:
        if one is same or not one.kept_bytes:
            continue
        extra = "" if same is None else f"{ratio(one.total_s / same.total_s)} the same worker; "
        lines.append(
            f"{NAMES[one.way]}: {extra}{megabytes(one.kept_bytes)} MB leave the worker and come "
            f"back, {one.store_s:.2f} s of the tasks' time are spent keeping and fetching them "
            f"beside {one.kernel_s:.2f} s of kernels"
            + (f", in {one.chunks} chunks." if one.chunks > 1 else ".")
        )
    lines.append(
        "Locality wins because activations are many times larger than what a step must send: "
        "weights and gradients."
    )
    return lines
