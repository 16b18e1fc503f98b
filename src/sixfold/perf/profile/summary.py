"""From what ranks have measured to the figures of a profile: layers on the machine's roofline.

A layer's time is the mean over ranks of each rank's median. Its limit is the least time that the
machine would need for its operations and bytes,

    max( operations / peak,  bytes / bandwidth )

with the peak of one core while as many are busy as there are ranks on a host, and the bandwidth
of copies of arrays of the layer's size (so a layer that fits into a cache is held against that
cache). The share of the roofline is limit / time; above 1 the layer has found its input in a
nearer cache than a copy of that size would.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model", 2009;
A. Ilic, F. Pratas, L. Sousa, "Cache-aware roofline model", 2014.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from sixfold.perf.profile.limits import Machine
from sixfold.perf.profile.results import (
    COSTS,
    DIRECTIONS,
    FunctionTime,
    Layer,
    Memory,
    Pass,
    RankFigures,
    StepTimes,
    Totals,
    WatchedStep,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of a profile that ranks have measured."""

    layers: list[Layer]
    step: StepTimes
    memory: list[Memory]  # by rank
    totals: Totals
    busy_cores: int
    peak_flops: float


def summarise(
    ranks: Sequence[RankFigures], machine: Machine, *, precision: str = "float32"
) -> Summary:
    """The figures of a profile, from what each rank has written and the machine's limits."""
    working = [rank for rank in ranks if rank.shards]
    if not working:
        raise ValueError("no rank had a shard")
    hosts = [rank.host for rank in working]
    busy = max(hosts.count(host) for host in hosts)
    precision = {"bf16": "bfloat16"}.get(precision, precision)
    shards = statistics.fmean(sum(rank.shards.values()) for rank in working)
    rows: dict[str, list[Layer]] = {}
    for rank in working:
        for row in rank.layers:
            rows.setdefault(row.name, []).append(row)
    layers = [_layer(found, machine, busy, precision, shards) for found in rows.values()]
    return Summary(
        layers=layers,
        step=step_times(working),
        memory=[rank.memory for rank in ranks],
        totals=_totals(working, layers),
        busy_cores=busy,
        peak_flops=machine.peak_flops(busy, precision),
    )


def _layer(
    rows: Sequence[Layer], machine: Machine, busy: int, precision: str, shards: float
) -> Layer:
    means: dict[str, Any] = {
        name: round(statistics.fmean(getattr(row, name) for row in rows)) for name in COSTS
    }
    for name in ("forward_s", "backward_s", "around_s"):
        means[name] = statistics.fmean(getattr(row, name) for row in rows)
    layer = dataclasses.replace(rows[0], functions=_functions(rows), **means)
    if not layer.counted:
        return layer
    places = {name: _placed(layer, name, machine, busy, precision, shards) for name in DIRECTIONS}
    return dataclasses.replace(layer, forward=places["forward"], backward=places["backward"])


def _functions(rows: Sequence[Layer]) -> list[FunctionTime]:
    sums: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for entry in row.functions:
            into = sums.setdefault((entry.direction, entry.function), [0.0, 0.0])
            into[0] += entry.seconds / len(rows)
            into[1] += entry.calls / len(rows)
    return [
        FunctionTime(direction=direction, function=function, seconds=seconds, calls=round(calls))
        for (direction, function), (seconds, calls) in sums.items()
    ]


def _placed(
    layer: Layer, direction: str, machine: Machine, busy: int, precision: str, shards: float
) -> Pass:
    is_forward = direction == "forward"
    flops = layer.forward_flops if is_forward else layer.backward_flops
    moved = layer.forward_bytes if is_forward else layer.backward_bytes
    seconds = layer.seconds(direction)
    peak = machine.peak_flops(busy, precision)
    # A copy of arrays of n bytes touches 2 n.
    bandwidth = machine.bandwidth(busy, int(moved / max(shards, 1) / 2))
    limit = max(flops / peak, moved / bandwidth)
    return Pass(
        limit_s=limit,
        share=limit / seconds if seconds > 0 and limit > 0 else None,
        flops_per_s=flops / seconds if seconds > 0 else None,
        bytes_per_s=moved / seconds if seconds > 0 else None,
        intensity=flops / moved if moved else None,
        bandwidth=bandwidth,
        bound="compute" if flops / peak > moved / bandwidth else "memory",
    )


def step_times(ranks: Sequence[RankFigures]) -> StepTimes:
    """Where a step's time goes; means over ranks."""
    clocks = [rank.of_kind("clock") for rank in ranks]
    lengths = [
        statistics.fmean(step.whole_s for step in steps) for steps in zip(*clocks, strict=True)
    ]
    # One step for all parts, the middle one, so that they add up to it.
    middle = lengths.index(statistics.median_low(lengths))
    parts = [_parts(steps[middle]) for steps in clocks]
    plain = statistics.fmean(
        statistics.median(step.whole_s for step in rank.of_kind("plain")) for rank in ranks
    )
    return StepTimes(
        plain_s=plain,
        timing_costs_s=statistics.median(lengths) - plain,
        samples=statistics.fmean(rank.steps[-1].samples for rank in ranks),
        **{name: statistics.fmean(part[name] for part in parts) for name in parts[0]},
    )


def _parts(step: WatchedStep) -> dict[str, float]:
    passes = step.forward_s + step.backward_s + step.around_s
    # What divided networks exchange in the middle of a layer is in the layer's time.
    inside = max(passes - step.compute_s, 0.0)
    return {
        "clock_s": step.whole_s,
        "forward_s": step.forward_s,
        "backward_s": step.backward_s,
        "around_s": step.around_s,
        "data_s": step.data_s,
        "communication_s": step.communication_s,
        "waiting_s": step.waiting_s,
        "update_s": step.update_s,
        "unattributed_s": step.compute_s + inside - passes,
    }


def _totals(ranks: Sequence[RankFigures], layers: Sequence[Layer]) -> Totals:
    totals: dict[str, Any] = {name: sum(getattr(one, name) for one in layers) for name in COSTS}
    for direction in DIRECTIONS:
        placed = [(one.seconds(direction), p) for one in layers if (p := one.place(direction))]
        seconds = sum(spent for spent, _ in placed)
        limit = sum(place.limit_s for _, place in placed)
        flops = totals[f"{direction}_flops"]
        totals[f"{direction}_s"] = sum(one.seconds(direction) for one in layers)
        totals[f"{direction}_limit_s"] = limit
        totals[f"{direction}_share"] = limit / seconds if seconds > 0 else None
        totals[f"{direction}_flops_per_s"] = flops / seconds if seconds > 0 else None
    return Totals(
        parameters=sum(one.parameters for one in layers),
        ranks=len(ranks),
        around_s=sum(one.around_s for one in layers),
        **totals,
    )
