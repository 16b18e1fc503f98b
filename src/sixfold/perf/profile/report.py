"""The report of a profile: flame plot, roofline, layers, operators, memory, ranks over time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import compact, linear, logarithmic, percent, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.frame import render_page
from sixfold.core.run_directory import read_json
from sixfold.perf.profile import table
from sixfold.perf.profile.utilisation import REASONS

Plain = dict[str, Any]

LEAST_WIDTH = 0.05
"""Percent of the plot below which a block of the flame plot is not drawn."""

CSS = {
    "startup": "other",
    "compute": "compute",
    "update": "update",
    "data": "data",
    "communication": "communication",
    "straggler": "waiting",
    "scheduler": "scheduler",
    "between": "between",
    "forward": "compute",
    "backward": "validation",
    "around": "scheduler",
    "waiting": "waiting",
    "unattributed": "between",
}
"""Colour of each reason, and of each part of a step."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of the flame plot.

    Attributes:
        left: where it begins, in percent.
        width: in percent.
        row: from the top, from 0.
        name: what it is.
        text: what a reader sees who points at it.
        css: its colour's class.
        share: how dark it is, 0 to 1.
    """

    left: float
    width: float
    row: int
    name: str
    text: str
    css: str
    share: float


def write_profile(path: Path, profile: Plain) -> Path:
    """Write `profile.html`, one file that needs no other and no network.

    Args:
        path: the profile's directory.
        profile: what `profile.json` holds.
    """
    page = path / "profile.html"
    write_atomically(page, render(path, profile).encode())
    return page


def render(path: Path, profile: Plain) -> str:
    """The page as text; arguments as for `write_profile`."""
    samples = _samples(path)
    return render_page(
        __package__,
        "page.html",
        profile=profile,
        title=_title(profile),
        subtitle=_subtitle(profile),
        figures=_figures(profile),
        flame=flame(profile) if "layers" in profile else [],
        roofline=roofline(profile) if "layers" in profile else None,
        layers=table.layer_rows(profile) if "layers" in profile else [],
        operators=table.operator_rows(profile) if "layers" in profile else [],
        step=_step_parts(profile) if "step" in profile else [],
        memory=table.memory_rows(profile) if "memory" in profile else [],
        uses=_uses(profile),
        startup=list(profile.get("startup", {}).items()),
        processors=processors(samples) if samples else None,
        beside=table.beside_rows(profile) if "sides" in profile else [],
        sides=[name for name, side in profile.get("sides", {}).items() if "failed" not in side],
        machine=table.machine_rows(profile["machine"]) if "machine" in profile else [],
        reasons=[(table.REASON_NAMES.get(name, name), CSS[name]) for name in REASONS],
    )


def flame(profile: Plain) -> list[Block]:
    """A step from left to right: what it consists of, layers below that, operators below these.

    Widths are those of a step whose layers are timed. Operators were timed in another step; below
    a layer they have the shares that they had of it there.
    """
    step, whole = profile["step"], profile["step"]["clock_s"]
    if whole <= 0:
        return []
    blocks: list[Block] = []
    at = 0.0

    def put(name: str, seconds: float, css: str, row: int, left: float) -> float:
        width = 100 * seconds / whole
        if width >= LEAST_WIDTH:
            text = f"{name}: {1000 * seconds:.3f} ms, {percent(seconds / whole)} of the step"
            share = min(seconds / whole * 4, 1.0)
            blocks.append(
                Block(
                    left=round(left, 3),
                    width=round(width, 3),
                    row=row,
                    name=name,
                    text=text,
                    css=css,
                    share=round(0.55 + 0.45 * share, 2),
                )
            )
        return float(left + width)

    at = put("waiting for data", step["data_s"], "data", 0, at)
    for direction in ("forward", "backward", "around"):
        start = at
        at = put(direction, step[f"{direction}_s"], CSS[direction], 0, at)
        layers = [layer for layer in profile["layers"] if layer[f"{direction}_s"] > 0]
        sums = sum(layer[f"{direction}_s"] for layer in layers)
        # Medians of layers need not add up to the median of their sum.
        scale = step[f"{direction}_s"] / sums if sums > 0 else 0.0
        left = start
        for layer in reversed(layers) if direction == "backward" else layers:
            seconds = scale * layer[f"{direction}_s"]
            inside = [f for f in layer["functions"] if f["direction"] == direction]
            known = sum(f["seconds"] for f in inside)
            below = left
            for entry in sorted(inside, key=lambda entry: -entry["seconds"]):
                if entry["function"] and known > 0:
                    part = seconds * entry["seconds"] / known
                    name = entry["function"].removeprefix("aten::")
                    below = put(name, part, CSS[direction], 2, below)
            left = put(layer["name"], seconds, CSS[direction], 1, left)
    for name, words in (
        ("waiting", "waiting for ranks"),
        ("communication", "transfer"),
        ("update", "update"),
        ("unattributed", "not attributed"),
    ):
        at = put(words, max(step[f"{name}_s"], 0.0), CSS[name], 0, at)
    return blocks


def roofline(profile: Plain) -> Chart | None:
    """Every layer's pass by its intensity and its rate, below the machine's limits."""
    points = [
        (layer, direction)
        for direction in ("forward", "backward")
        for layer in profile["layers"]
        if layer.get(f"{direction}_flops_per_s") and layer.get(f"{direction}_intensity")
    ]
    if not points:
        return None
    points.sort(key=lambda point: float(point[0][f"{point[1]}_intensity"]))
    busy, machine = profile["busy_cores"], profile["machine"]
    peak = profile["peak_flops"]
    intensity = np.array([layer[f"{d}_intensity"] for layer, d in points])
    rate = np.array([layer[f"{d}_flops_per_s"] for layer, d in points])
    x = logarithmic(min(intensity.min(), 0.1), max(intensity.max(), 200.0), compact)
    y = logarithmic(max(min(rate.min(), 1e8), 1e5), 1.5 * peak, lambda v: compact(v / 1e9))
    # Drawn as dots of each direction below; this one, without a drawing, has the hover values.
    series = [Series(name="", x=intensity, y=rate * np.nan, key=False)]
    across = np.geomspace(x.low, x.high, 200)
    for k, slope in enumerate(_roofs(machine, busy)):
        roof = np.minimum(across * slope, peak)
        name = f"copy of {table.size_text(machine['copies'][k]['array_bytes'])}"
        roof = np.where(roof < y.low, np.nan, roof)
        series.append(Series(name=name, x=across, y=roof, colour=f"r{k}", hover=False))
    for direction in ("forward", "backward"):
        mine = [k for k, (_, d) in enumerate(points) if d == direction]
        series.append(
            Series(
                name=direction,
                x=intensity[mine],
                y=rate[mine],
                colour=CSS[direction],
                kind="dots",
                hover=False,
            )
        )
    return Chart(
        id="roofline",
        title="Layers on the machine's roofline",
        note="GFLOP/s over FLOP/byte, both axes logarithmic. Slanted lines: copies of arrays of "
        f"the given size, with {busy} of {machine['cores']} cores busy; level line: matrix "
        "multiplication. A layer is held against the line of its own size.",
        summary="The rate of every layer, forward and backward, against its operations per byte.",
        x=x,
        y=y,
        x_label="operations per byte (FLOP/byte)",
        series=series,
        heads=[f"{layer['name']} {d}" for layer, d in points],
        rows=[
            ("achieved", "compute", [_giga(p[f"{d}_flops_per_s"], "FLOP/s") for p, d in points]),
            ("bytes", "data", [_giga(p[f"{d}_bytes_per_s"], "B/s") for p, d in points]),
            ("of the roofline", "update", [percent(p[f"{d}_share"], 0) for p, d in points]),
            ("bound by", "waiting", [p[f"{d}_bound"] for p, d in points]),
        ],
    )


def _roofs(machine: Plain, busy: int) -> list[float]:
    """Slopes of the roofline: bytes a second of one core, with so many busy."""
    cores, found = machine["cores"], []
    for rate in machine["copies"]:
        alone, each = rate["one_core_bytes"], rate["all_cores_bytes"] / cores
        part = min((busy - 1) / max(cores - 1, 1), 1.0)
        share = alone + (each - alone) * part
        found.append(share if busy <= cores else share * cores / busy)
    return found


def processors(samples: Plain) -> Chart | None:
    """Processors in use over time, by program."""
    seen = samples.get("processors", [])
    if len(seen) < 2:
        return None
    times = np.array([at for at, _ in seen])
    times -= times[0]
    programs = samples["processes"]
    used = {
        name: np.array(
            [sum(v for pid, v in shares.items() if programs.get(pid) == name) for _, shares in seen]
        )
        for name in sorted(set(programs.values()))
    }
    used = {name: values for name, values in used.items() if values.max() > 0.02}
    if not used:
        return None
    top = max(float(np.sum(list(used.values()), axis=0).max()), 1.0)
    colours = ("compute", "communication", "update", "waiting", "data", "scheduler")
    return Chart(
        id="processors",
        title="Processors in use",
        note="By program, sampled on the launcher's machine: all processes that it has begun.",
        summary="How many processors each program used over time.",
        x=linear(0.0, float(times[-1]), compact, snug=True),
        y=linear(0.0, top, compact, count=4),
        x_label="seconds",
        series=[
            Series(name=name, x=times, y=values, colour=colours[k % len(colours)])
            for k, (name, values) in enumerate(used.items())
        ],
        write=lambda value: f"{value:.2f}",
        head=lambda at: f"{at:.1f} s",
    )


def _samples(path: Path) -> Plain | None:
    return read_json(path / "profile" / "samples.json")


def _title(profile: Plain) -> str:
    settings = profile.get("settings", {})
    if "sides" in profile:
        side = next(s for s in profile["sides"].values() if "failed" not in s)
        settings = side["settings"]
    model = settings.get("model", {}).get("model", "a training")
    return f"Where the time of {model} goes"


def _subtitle(profile: Plain) -> str:
    side = profile
    if "sides" in profile:
        side = next(s for s in profile["sides"].values() if "failed" not in s)
    settings = side.get("settings", {})
    words = [
        settings.get("data", {}).get("data", ""),
        f"batch {settings.get('training', {}).get('batch_size', '')}",
        settings.get("strategy", {}).get("strategy", ""),
        f"{len(side.get('utilisation', []))} ranks",
        " beside ".join(profile["sides"]) if "sides" in profile else profile.get("engine", ""),
    ]
    return " · ".join(word for word in words if word)


def _figures(profile: Plain) -> list[tuple[str, str, str]]:
    if "step" not in profile:
        return []
    step, totals = profile["step"], profile["totals"]
    unattributed = step["unattributed_s"] / step["clock_s"] if step["clock_s"] > 0 else 0.0
    peak = max(memory["resident_peak_bytes"] for memory in profile["memory"])
    kept = max(memory["step_peak_bytes"] for memory in profile["memory"])
    return [
        ("Images/s", plain(round(profile["images_per_s"] or 0)), "plain steps, all ranks"),
        ("Step", f"{1000 * step['plain_s']:.2f} ms", "median of plain steps, mean over ranks"),
        ("Forward", percent(totals["forward_share"] or 0, 0), "of the roofline"),
        ("Backward", percent(totals["backward_share"] or 0, 0), "of the roofline"),
        ("Not attributed", percent(unattributed), "of a step whose layers are timed"),
        ("Memory", f"{kept / 1e6:,.0f} MB", f"step's peak; the process {peak / 1e6:,.0f} MB"),
    ]


def _step_parts(profile: Plain) -> list[tuple[str, str, float, str]]:
    """(name, ms, percent, colour) of each part of a step."""
    step = profile["step"]
    whole = step["clock_s"] or 1.0
    return [
        (words, f"{1000 * step[f'{name}_s']:.3f}", 100 * step[f"{name}_s"] / whole, CSS[name])
        for name, words in table.STEP_NAMES.items()
    ]


def _uses(profile: Plain) -> list[Plain]:
    found = []
    for use in profile.get("utilisation", []):
        whole = sum(use["seconds"].values()) or 1.0
        inside = sum(use["in_steps"].values()) or 1.0
        found.append(
            {
                "rank": use["rank"],
                "host": use["host"],
                "total": f"{whole:.2f} s",
                "cpu": "" if use["cpu_share"] is None else percent(use["cpu_share"], 0),
                "whole": _parts(use["seconds"], whole),
                "inside": _parts(use["in_steps"], inside),
            }
        )
    return found


def _parts(seconds: Plain, whole: float) -> list[tuple[str, str, float, str]]:
    return [
        (
            table.REASON_NAMES.get(name, name),
            CSS[name],
            round(100 * seconds[name] / whole, 2),
            f"{seconds[name]:.3f} s",
        )
        for name in REASONS
    ]


def _giga(value: float, unit: str) -> str:
    return f"{value / 1e9:.1f} G{unit}"
