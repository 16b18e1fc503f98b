"""What the measurements of two-stage steps amount to: a table, a plot, and a verdict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.findings import Bar, Bars, Findings, Table, megabytes, ratio, seconds
from sixfold.studies.lab.long_lived import LongLived
from sixfold.studies.lab.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Serial:
    """Forward and backward of all shards in one process on one thread."""

    forward_s: float  # all shards forward
    backward_s: float  # then all backward
    gradient: Array  # (P,) their sum
    right: bool  # whether it has the bits of the step that training makes


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """A way to keep activations."""

    way: str
    times_s: list[float]  # both stages, of every timed run
    forward: Cost  # cost of the forward stage in the median run
    backward: Cost  # cost of the backward stage
    kernel_s: float  # time inside the network's kernels, over all tasks
    store_s: float  # time of encoding, keeping, fetching and decoding, over all tasks
    kept_bytes: int  # activations
    chunks: int  # in how many parts the step was made
    right: bool  # whether the gradient had the bits of the serial one, every time

    @property
    def forward_s(self) -> float:
        """Wall time of the forward stage."""
        return self.forward.wall_s

    @property
    def backward_s(self) -> float:
        """Wall time of the backward stage."""
        return self.backward.wall_s

    @property
    def total_s(self) -> float:
        """Wall time of both."""
        return self.forward_s + self.backward_s

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"total_s": self.total_s}


NAMES = {
    "same": "same worker",
    "driver": "driver",
    "file": "file store",
    "redis": "Redis",
}


def tell(
    problem: Problem,
    base: LongLived,
    alone: Serial,
    measured: list[MeasuredWay],
    notes: list[str],
) -> Findings:
    """Findings of the study."""
    g = problem.geometry
    findings = Findings(
        title="Forward and backward as two stages",
        subtitle=f"{g.batch:,} images {g.channels}x{g.size[0]}x{g.size[1]}, the slide network's "
        f"layers with kernel {g.maps} {g.kernel[0]}x{g.kernel[1]}x{g.channels}",
        notes=notes,
    )
    findings.right = alone.right and all(one.right for one in measured)
    findings.tables = [_table(base, alone, measured)]
    findings.bars = [_bars(base, alone, measured)]
    findings.verdict = _verdict(base, measured)
    findings.data = {
        "long_lived": base.as_data(),
        "serial": {
            "forward_s": alone.forward_s,
            "backward_s": alone.backward_s,
            "gradient_is_that_of_a_step": alone.right,
        },
        "ways": [one.as_data() for one in measured],
    }
    return findings


def _table(base: LongLived, alone: Serial, measured: list[MeasuredWay]) -> Table:
    total = alone.forward_s + alone.backward_s
    rows: list[tuple[str, ...]] = [
        ("long-lived job", "", "", seconds(base.step_s), "1x", *("0", "", "0", "", "")),
        (
            *("serial, one thread", seconds(alone.forward_s), seconds(alone.backward_s)),
            *(seconds(total), ratio(total / base.step_s), "0", "", "0", ""),
            "yes" if alone.right else "NO",
        ),
    ]
    for one in measured:
        whole = one.forward.run_s + one.backward.run_s
        rows.append(
            (
                NAMES[one.way],
                seconds(one.forward_s) if one.forward.jobs else "",
                seconds(one.backward_s) if one.forward.jobs else "",
                seconds(one.total_s),
                ratio(one.total_s / base.step_s),
                megabytes(one.kept_bytes),
                f"{one.chunks}",
                f"{one.forward.jobs + one.backward.jobs}",
                f"{100 * one.kernel_s / whole:.0f}" if whole else "",
                "yes" if one.right else "NO",
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
        Bar(
            name="long-lived job",
            parts=((base.step_s, "update"),),
            text=f"{base.step_s:.3f} s",
        ),
        Bar(
            name="serial, one thread",
            parts=((alone.forward_s, "compute"), (alone.backward_s, "communication")),
            text=f"{alone.forward_s + alone.backward_s:.3f} s",
        ),
    ]
    for one in sorted(measured, key=lambda way: way.total_s):
        parts: tuple[tuple[float, str], ...] = ((one.total_s, "update"),)
        if one.forward.jobs:
            parts = ((one.forward_s, "compute"), (one.backward_s, "communication"))
        bars.append(Bar(name=NAMES[one.way], parts=parts, text=f"{one.total_s:.3f} s"))
    return Bars(
        title="Time of a step",
        note="Median run.",
        bars=bars,
        keys=(
            ("forward", "compute"),
            ("backward", "communication"),
            ("both at once", "update"),
        ),
    )


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
