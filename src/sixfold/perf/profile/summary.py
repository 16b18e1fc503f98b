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

import statistics
from collections.abc import Sequence
from typing import Any

from sixfold.perf.profile.cost import COUNTS
from sixfold.perf.profile.machine import Machine

Plain = dict[str, Any]
DIRECTIONS = ("forward", "backward")
_FACTS = ("kind", "parameters", "input_shapes", "output_shape", "unknown")
_COUNTS = tuple(name for name in COUNTS if name != "output_bytes")


def summarise(ranks: Sequence[Plain], machine: Machine, *, precision: str = "float32") -> Plain:
    """The figures of a profile, from what each rank has written and the machine's limits.

    ``layers`` (seconds, FLOPs, bytes, achieved rates, roofline), ``step`` (where a step's time
    goes, with what is not attributed), ``memory`` (by rank), ``totals``.
    """
    working = [rank for rank in ranks if rank["shards"]]
    if not working:
        raise ValueError("no rank had a shard")
    hosts = [rank["host"] for rank in working]
    busy = max(hosts.count(host) for host in hosts)  # ranks that compute at once on one host
    precision = {"bf16": "bfloat16"}.get(precision, precision)
    shards = statistics.fmean(sum(rank["shards"].values()) for rank in working)
    rows: dict[str, list[Plain]] = {}
    for rank in working:
        for row in rank["layers"]:
            rows.setdefault(row["name"], []).append(row)
    layers = [_layer(found, machine, busy, precision, shards) for found in rows.values()]
    return {
        "layers": layers,
        "step": step_times(working),
        "memory": [{"rank": rank["rank"], **rank["memory"]} for rank in ranks],
        "totals": _totals(working, layers),
        "busy_cores": busy,
        "peak_flops": machine.peak_flops(busy, precision),
    }


def _layer(
    rows: Sequence[Plain], machine: Machine, busy: int, precision: str, shards: float
) -> Plain:
    first = rows[0]
    layer: Plain = {"name": first["name"]}
    layer |= {name: first[name] for name in _FACTS if name in first}
    for name in _COUNTS:
        if name in first:
            layer[name] = round(statistics.fmean(row.get(name, 0) for row in rows))
    for direction in (*DIRECTIONS, "around"):
        layer[f"{direction}_s"] = statistics.fmean(row[f"{direction}_s"] for row in rows)
    layer["functions"] = _functions(rows)
    for direction in DIRECTIONS:
        if f"{direction}_flops" in layer:
            layer |= _placed(layer, direction, machine, busy, precision, shards)
    return layer


def _functions(rows: Sequence[Plain]) -> list[Plain]:
    sums: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for entry in row["functions"]:
            into = sums.setdefault((entry["direction"], entry["function"]), [0.0, 0.0])
            into[0] += entry["seconds"] / len(rows)
            into[1] += entry["calls"] / len(rows)
    return [
        {"direction": direction, "function": function, "seconds": seconds, "calls": round(calls)}
        for (direction, function), (seconds, calls) in sums.items()
    ]


def _placed(
    layer: Plain, direction: str, machine: Machine, busy: int, precision: str, shards: float
) -> Plain:
    """Where a layer's pass stands against the roofline."""
    flops, moved = layer[f"{direction}_flops"], layer[f"{direction}_bytes"]
    seconds = layer[f"{direction}_s"]
    peak = machine.peak_flops(busy, precision)
    # A copy of arrays of n bytes touches 2 n.
    bandwidth = machine.bandwidth(busy, int(moved / max(shards, 1) / 2))
    limit = max(flops / peak, moved / bandwidth)
    known = seconds > 0 and limit > 0
    return {
        f"{direction}_limit_s": limit,
        f"{direction}_share": limit / seconds if known else None,
        f"{direction}_flops_per_s": flops / seconds if seconds > 0 else None,
        f"{direction}_bytes_per_s": moved / seconds if seconds > 0 else None,
        f"{direction}_intensity": flops / moved if moved else None,
        f"{direction}_bandwidth": bandwidth,
        f"{direction}_bound": "compute" if flops / peak > moved / bandwidth else "memory",
    }


def step_times(ranks: Sequence[Plain]) -> Plain:
    """Where a step's time goes; means over ranks.

    ``plain_s`` is the median step as training makes it, ``clock_s`` the middle one of those whose
    layers were timed; ``timing_costs_s`` is by how much the median of the latter is longer.
    ``unattributed_s`` is what is left of the timed step when layers, data, exchanges and update
    are taken away; what divided networks exchange in the middle of a layer is in the layer's
    time, and not taken away twice.
    """
    clocks = [_of(rank, "clock") for rank in ranks]
    lengths = [
        statistics.fmean(step["whole_s"] for step in steps) for steps in zip(*clocks, strict=True)
    ]
    # One step for all parts, the middle one, so that they add up to it.
    middle = lengths.index(statistics.median_low(lengths))
    parts = [_parts(steps[middle]) for steps in clocks]
    found = {name: statistics.fmean(part[name] for part in parts) for name in parts[0]}
    plain = statistics.fmean(
        statistics.median(step["whole_s"] for step in _of(rank, "plain")) for rank in ranks
    )
    return {
        "plain_s": plain,
        "timing_costs_s": statistics.median(lengths) - plain,
        **found,
        "samples": statistics.fmean(rank["steps"][-1]["samples"] for rank in ranks),
    }


def _of(rank: Plain, kind: str) -> list[Plain]:
    return [step for step in rank["steps"] if step["kind"] == kind]


def _parts(step: Plain) -> dict[str, float]:
    passes = {f"{name}_s": float(step[f"{name}_s"]) for name in (*DIRECTIONS, "around")}
    others = ("data", "communication", "waiting", "update")
    phases = {f"{name}_s": float(step[f"{name}_s"]) for name in others}
    compute = float(step["compute_s"])
    inside = max(sum(passes.values()) - compute, 0.0)
    return {
        "clock_s": float(step["whole_s"]),
        **passes,
        **phases,
        "unattributed_s": compute + inside - sum(passes.values()),
    }


def _totals(ranks: Sequence[Plain], layers: Sequence[Plain]) -> Plain:
    totals: Plain = {name: sum(layer.get(name, 0) for layer in layers) for name in _COUNTS}
    totals["parameters"] = sum(layer.get("parameters", 0) for layer in layers)
    for direction in DIRECTIONS:
        placed = [layer for layer in layers if f"{direction}_limit_s" in layer]
        seconds = sum(layer[f"{direction}_s"] for layer in placed)
        limit = sum(layer[f"{direction}_limit_s"] for layer in placed)
        totals[f"{direction}_s"] = sum(layer[f"{direction}_s"] for layer in layers)
        totals[f"{direction}_limit_s"] = limit
        totals[f"{direction}_share"] = limit / seconds if seconds > 0 else None
        flops = totals[f"{direction}_flops"]
        totals[f"{direction}_flops_per_s"] = flops / seconds if seconds > 0 else None
    totals["ranks"] = len(ranks)
    return totals
