"""The report of a profile: flame plot, roofline, layers, operators, memory, ranks over time."""

from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import compact, linear, logarithmic, percent, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.page import Blocks, Card, Cell, Figure, Page, Part, Section, Table, Text
from sixfold.core.run_directory import read_json
from sixfold.perf.profile import table
from sixfold.perf.profile.results import DIRECTIONS, Profile
from sixfold.perf.profile.utilisation import REASONS

Plain = dict[str, Any]
LEAST_WIDTH = 0.05  # percent of the plot below which a block of the flame plot is not drawn

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

_FLAME = [
    *(("forward", "compute"), ("backward", "validation"), ("around layers", "scheduler")),
    *(("data", "data"), ("waiting", "waiting"), ("transfer", "communication")),
    *(("update", "update"), ("not attributed", "between")),
]


def write_profile(path: Path, profile: Plain) -> Path:
    """Write `profile.html` from what `profile.json` holds, into the profile's directory."""
    page = path / "profile.html"
    write_atomically(page, render(path, Profile.of(profile)).encode())
    return page


def render(path: Path, profile: Profile) -> str:
    """The page as text."""
    samples = read_json(path / "profile" / "samples.json")
    sections = [*_engines(profile), *_layers(profile), *_ranks(profile, samples)]
    if (machine := profile.machine) is not None:
        sections.append(
            Section(
                title="The machine",
                lead=f"{machine.processor}, {machine.cores} cores.",
                blocks=[table.machine(machine)],
            )
        )
    # Of several engines the first that could be measured says what was trained.
    sides = profile.sides
    side = next((s for s in sides.values() if not s.failed), profile)
    settings = side.settings
    title = f"Where the time of {settings.get('model', {}).get('model', 'a training')} goes"
    words = [
        settings.get("data", {}).get("data", ""),
        f"batch {settings.get('training', {}).get('batch_size', '')}",
        settings.get("strategy", {}).get("strategy", ""),
        f"{len(side.utilisation)} ranks",
        ", ".join(sides) if sides else profile.engine,
    ]
    return Page(
        title=f"{title} · Sixfold",
        eyebrow="Sixfold profile",
        heading=title,
        subtitle=" · ".join(word for word in words if word),
        notes=profile.notes,
        figures=_figures(profile),
        sections=sections,
        files="profile.json next to it holds every figure, trace.json opens in Perfetto.",
    ).html()


def _engines(profile: Profile) -> list[Section]:
    if not profile.sides:
        return []
    sides = [name for name, side in profile.sides.items() if not side.failed]
    links = [(f"page of {name}", f"{name}/profile.html") for name in sides]
    lead = (
        "The same training, batch and number of workers on each engine; each was measured by "
        "itself, one after another."
    )
    blocks = [table.engines(profile), Text(links=links)]
    return [Section(title="Engines compared", lead=lead, blocks=blocks)]


def _layers(profile: Profile) -> list[Section]:
    """A step, its layers and operators on the roofline, and memory."""
    if profile.step is None:
        return []
    blocks, found = flame(profile), roofline(profile)
    step = Card(blocks=[Blocks(blocks=blocks, keys=_FLAME), table.step(profile.step)])
    return [
        Section(
            title="A step",
            lead="From left to right the parts of a step whose layers are timed; below each its "
            "layers, and below these torch's operators and our own kernels. Point at a block for "
            "its time.",
            blocks=[step] if blocks else [],
        ),
        *_critical_path(profile),
        Section(title="Roofline", blocks=[found] if found else []),
        Section(
            title="Layers",
            lead="Means over ranks of medians over steps. MFLOP, MB and what is saved for the "
            "backward pass are by arithmetic, of one rank's share of a step; roof is the least "
            "time that the machine would need over the time taken. * counted as element by "
            "element.",
            blocks=[table.layers(profile, profile.step)],
        ),
        Section(title="Operators", blocks=[table.operators(profile)]),
        Section(
            title="Memory",
            lead="Accounted by kind, and the measured peak of what a step allocates, and of the "
            "process.",
            blocks=[table.memory(profile)],
        ),
    ]


def _critical_path(profile: Profile) -> list[Section]:
    if profile.critical_path is None:
        return []
    return [
        Section(
            title="Critical path",
            lead="What makes a step as long as it is, followed backwards from the rank that was "
            "done last: where a rank waited for a message, the path goes on at the rank that sent "
            "it. Overlapped is the time in which ranks computed while an exchange was under way.",
            blocks=[table.critical_path(profile)],
        )
    ]


def _ranks(profile: Profile, samples: Plain | None) -> list[Section]:
    rows: list[list[str | Cell]] = []
    for use in profile.utilisation:
        cpu = "" if use.cpu_share is None else f", CPU {percent(use.cpu_share, 0)}"
        name = f"rank {use.rank}"
        since = Cell(text=name, detail="since the launch", title=use.host)
        whole = sum(use.seconds.values())
        rows.append([since, Cell(parts=_parts(use.seconds)), f"{whole:.2f} s"])
        rows.append([Cell(detail=f"in steps{cpu}"), Cell(parts=_parts(use.in_steps)), ""])
    blocks: list[Any] = []
    if rows:
        keys = [(table.REASON_NAMES.get(name, name), CSS[name]) for name in REASONS]
        tables = [Table(rows=rows, texts=(0, 1), keys=keys, css="use")]
        startup = table.startup(profile.startup)
        blocks.append(Card(blocks=[*tables, *([startup] if startup.rows else [])]))
    if samples and (chart := processors(samples)):
        blocks.append(chart)
    return [
        Section(
            title="Ranks",
            lead="Where the time of every rank went: since the launch, and in its steps alone. "
            "Straggler is waiting for the slowest rank, transfer moving bytes, scheduler waiting "
            "for work.",
            blocks=blocks,
        )
    ]


def flame(profile: Profile) -> list[tuple[Part, int, str, float]]:
    """A step from left to right: what it consists of, layers below that, operators below these.

    Widths are those of a step whose layers are timed. Operators were timed in another step; below
    a layer they have the shares that they had of it there.
    """
    step = profile.step
    if step is None or step.clock_s <= 0:
        return []
    whole = step.clock_s
    blocks: list[tuple[Part, int, str, float]] = []
    at = 0.0

    def put(name: str, seconds: float, css: str, row: int, left: float) -> float:
        width = 100 * seconds / whole
        if width >= LEAST_WIDTH:
            text = f"{name}: {1000 * seconds:.3f} ms, {percent(seconds / whole)} of the step"
            share = min(seconds / whole * 4, 1.0)
            part = Part(colour=css, left=round(left, 3), width=round(width, 3), title=text)
            blocks.append((part, row, name, round(0.55 + 0.45 * share, 2)))
        return float(left + width)

    at = put("waiting for data", step.data_s, "data", 0, at)
    for direction in ("forward", "backward", "around"):
        start = at
        at = put(direction, step.seconds(direction), CSS[direction], 0, at)
        layers = [layer for layer in profile.layers if layer.seconds(direction) > 0]
        sums = sum(layer.seconds(direction) for layer in layers)
        # Medians of layers need not add up to the median of their sum.
        scale = step.seconds(direction) / sums if sums > 0 else 0.0
        left = start
        for layer in reversed(layers) if direction == "backward" else layers:
            seconds = scale * layer.seconds(direction)
            inside = [f for f in layer.functions if f.direction == direction]
            known = sum(f.seconds for f in inside)
            below = left
            for entry in sorted(inside, key=lambda entry: -entry.seconds):
                if entry.function and known > 0:
                    part = seconds * entry.seconds / known
                    name = entry.function.removeprefix("aten::")
                    below = put(name, part, CSS[direction], 2, below)
            left = put(layer.name, seconds, CSS[direction], 1, left)
    for name, words in (
        ("waiting", "waiting for ranks"),
        ("communication", "transfer"),
        ("update", "update"),
        ("unattributed", "not attributed"),
    ):
        at = put(words, max(step.part(name), 0.0), CSS[name], 0, at)
    return blocks


def roofline(profile: Profile) -> Chart | None:
    """Every layer's pass by its intensity and its rate, below the machine's limits."""
    machine, busy, peak = profile.machine, profile.busy_cores, profile.peak_flops
    points = [
        (layer.name, direction, place)
        for direction in DIRECTIONS
        for layer in profile.layers
        if (place := layer.place(direction)) and place.flops_per_s and place.intensity
    ]
    if not points or machine is None:
        return None
    points.sort(key=lambda point: point[2].intensity or 0.0)
    places = [place for *_, place in points]
    intensity = np.array([place.intensity for place in places])
    rate = np.array([place.flops_per_s for place in places])
    x = logarithmic(min(intensity.min(), 0.1), max(intensity.max(), 200.0), compact)
    y = logarithmic(max(min(rate.min(), 1e8), 1e5), 1.5 * peak, lambda v: compact(v / 1e9))
    # Drawn as dots of each direction below; this one, without a drawing, has the hover values.
    series = [Series(name="", x=intensity, y=rate * np.nan, key=False)]
    across = np.geomspace(x.low, x.high, 200)
    for k, copy in enumerate(machine.copies):
        roof = np.minimum(across * machine.bandwidth(busy, copy.array_bytes), peak)
        roof = np.where(roof < y.low, np.nan, roof)
        name = f"copy of {table.size_text(copy.array_bytes)}"
        series.append(Series(name=name, x=across, y=roof, colour=f"r{k}", hover=False))
    for direction in DIRECTIONS:
        mine = [k for k, (_, d, _) in enumerate(points) if d == direction]
        x_mine, y_mine, colour = intensity[mine], rate[mine], CSS[direction]
        dots = Series(name=direction, x=x_mine, y=y_mine, colour=colour, kind="dots", hover=False)
        series.append(dots)
    return Chart(
        id="roofline",
        title="Layers on the machine's roofline",
        note="GFLOP/s over FLOP/byte, both axes logarithmic. Slanted lines: copies of arrays of "
        f"the given size, with {busy} of {machine.cores} cores busy; level line: matrix "
        "multiplication. A layer is held against the line of its own size.",
        summary="The rate of every layer, forward and backward, against its operations per byte.",
        x=x,
        y=y,
        x_label="operations per byte (FLOP/byte)",
        series=series,
        css="tall",
        heads=[f"{layer} {d}" for layer, d, _ in points],
        rows=[
            ("achieved", "compute", [_giga(place.flops_per_s, "FLOP/s") for place in places]),
            ("bytes", "data", [_giga(place.bytes_per_s, "B/s") for place in places]),
            ("of the roofline", "update", [percent(place.share or 0, 0) for place in places]),
            ("bound by", "waiting", [place.bound for place in places]),
        ],
    )


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


def _figures(profile: Profile) -> list[Figure]:
    step, totals = profile.step, profile.totals
    if step is None or totals is None:
        return []
    unattributed = step.unattributed_s / step.clock_s if step.clock_s > 0 else 0.0
    peak = max(memory.resident_peak_bytes for memory in profile.memory)
    kept = max(memory.step_peak_bytes for memory in profile.memory)
    return [
        ("Images/s", plain(round(profile.images_per_s or 0)), "plain steps, all ranks"),
        ("Step", f"{1000 * step.plain_s:.2f} ms", "median of plain steps, mean over ranks"),
        ("Forward", percent(totals.forward_share or 0, 0), "of the roofline"),
        ("Backward", percent(totals.backward_share or 0, 0), "of the roofline"),
        ("Not attributed", percent(unattributed), "of a step whose layers are timed"),
        ("Memory", f"{kept / 1e6:,.0f} MB", f"step's peak; the process {peak / 1e6:,.0f} MB"),
    ]


def _parts(seconds: dict[str, float]) -> list[Part]:
    found, whole = [], sum(seconds.values()) or 1.0
    for name in REASONS:
        width = round(100 * seconds[name] / whole, 2)
        title = f"{table.REASON_NAMES.get(name, name)}: {seconds[name]:.3f} s, {width}%"
        found.append(Part(colour=CSS[name], width=width, title=title))
    return found


def _giga(value: float | None, unit: str) -> str:
    return f"{(value or 0.0) / 1e9:.1f} G{unit}"
