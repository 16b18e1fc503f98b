"""The report of a sweep: one HTML file with curves, laws and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import duration, percent, plain, points_of
from sixfold.core.html.charts import Chart
from sixfold.core.html.page import Card, Cell, Figure, Page, Part, Section, Table, configuration
from sixfold.studies.sweep.plots import MOST_LINES, Line, chart, interval, named, percent_plain

PARTS = ("compute", "data", "communication", "waiting", "update")

THROUGH = 1e-3
"""Relative error up to which a law is said to go through a measurement."""

Figures = Mapping[str, Any]


def write_page(path: Path, config: Figures, result: Figures, tree: type[Any]) -> None:
    """Write the report.

    Args:
        path: of the file.
        config: settings as `config.json` holds them.
        result: figures as `result.json` holds them.
        tree: class of the settings.

    Raises:
        RunError: if the file cannot be written.
    """
    write_atomically(path, render(path.parent.name, config, result, tree).encode())


def render(name: str, config: Figures, result: Figures, tree: type[Any]) -> str:
    """The page as text."""
    time = result["what"] == "time"
    figures, sections = _time(result) if time else _quality(result)
    failures = [f"{member}: {reason}" for member, reason in sorted(result["failures"].items())]
    return Page(
        title=f"{name} · Sixfold",
        eyebrow=f"Sixfold sweep over {result['what']}",
        heading=name,
        state="not finished" if failures else "finished",
        good=not failures,
        subtitle=f"{config['model']['model']} on {config['data']['data'].partition(':')[0]}; "
        + "; ".join(
            f"{setting}: {', '.join(map(str, values))}"
            for setting, values in result["varied"].items()
        ),
        notes=failures,
        figures=figures,
        sections=[*sections, configuration(config, tree, sorted(result["versions"].items()))],
    ).html()


def _time(result: Figures) -> tuple[list[Figure], list[Section]]:
    rows = result["points"]
    timed = [row for row in rows if "images_per_s" in row]
    groups = _grouped(timed, "workers")
    charts = [_rates(groups), _speedups(groups, result["laws"])]
    charts += [
        _step_times(law, number)
        for number, law in enumerate(result["laws"])
        if law["law"] == "ernest"
    ]
    head = ("", "Images/s", "Range", "Step", "S", "E", "Serial", "Parts", "Start-up", "Steps")
    table = Table(head=head, rows=[_time_row(row) for row in rows], texts=(0, 7))
    return _time_headline(timed, result), [
        _curves(charts),
        Section(
            id="combinations",
            title="Combinations",
            lead="Images per second from the end of step 3 to the last step: median and range of "
            "the repeats. Speed-up and efficiency are medians of ratios within a repeat; “serial” "
            "is against one synchronous worker, where strategies are varied. Parts: where the time "
            "of a step went, mean over ranks.",
            keys=[(part, part) for part in PARTS],
            blocks=[table] if rows else [],
        ),
        Section(
            id="laws",
            title="Laws",
            css="grid",
            lead="Fitted with non-negative coefficients to relative errors. Intervals: 95% of a "
            "bootstrap over the repeats. Held out: each combination predicted from all others."
            if result["laws"]
            else "",
            blocks=[_law(law) for law in result["laws"]],
        ),
    ]


def _curves(charts: Sequence[Chart | None]) -> Section:
    made = [one for one in charts if one is not None]
    return Section(id="curves", title="Curves", css="grid", blocks=made)


def _grouped(rows: Sequence[Figures], over: str) -> dict[str, list[Figures]]:
    """Rows that differ in one setting only, by the words for all others."""
    found: dict[str, list[Figures]] = {}
    for row in rows:
        others = {name: value for name, value in row["values"].items() if name != over}
        found.setdefault(named(others), []).append(row)
    return {name: sorted(own, key=lambda row: float(row["workers"])) for name, own in found.items()}


def _rates(groups: Mapping[str, Sequence[Figures]]) -> Chart | None:
    lines = [
        Line(
            name=name,
            x=[row["workers"] for row in own],
            y=[row["images_per_s"]["median"] for row in own],
            low=[row["images_per_s"]["least"] for row in own],
            high=[row["images_per_s"]["most"] for row in own],
        )
        for name, own in list(groups.items())[:MOST_LINES]
    ]
    return chart(
        "rates",
        "Images per second",
        "median of the repeats; bars: least to most",
        lines,
        x_label="workers",
    )


def _speedups(groups: Mapping[str, Sequence[Figures]], laws: Sequence[Figures]) -> Chart | None:
    own = {name: [r for r in rows if "speedup" in r] for name, rows in groups.items()}
    chosen = [(name, rows) for name, rows in own.items() if len(rows) > 1][:MOST_LINES]
    lines = [
        Line(
            name=name,
            x=[row["workers"] for row in rows],
            y=[row["speedup"]["median"] for row in rows],
            low=[row["speedup"]["least"] for row in rows],
            high=[row["speedup"]["most"] for row in rows],
        )
        for name, rows in chosen
    ]
    most = max((row["workers"] for _, rows in chosen for row in rows), default=1)
    serial = {
        named(law["values"]): law["serial_part"]["value"]
        for law in laws
        if law["law"] == "amdahl" and not law["exact"]
    }
    places = [1 + k * (most - 1) / 20 for k in range(21)]
    for colour, (name, _) in enumerate(chosen):
        if name in serial:
            s = serial[name]
            amdahl = [1 / (s + (1 - s) / n) for n in places]
            lines.append(Line(name=f"Amdahl, {name}", x=places, y=amdahl, fit=True, colour=colour))
    if lines:
        lines.append(
            Line(name="as many times as workers", x=[1, most], y=[1, most], fit=True, colour=7)
        )
    return chart(
        "speedup",
        "Speed-up S",
        "against one worker in the same repeat; broken: Amdahl's law, and as many times as workers",
        lines,
        x_label="workers",
    )


def _step_times(law: Figures, number: int) -> Chart | None:
    """Ernest's law beside what was measured: step time over the batch, a line each n."""
    lines: list[Line] = []
    workers = sorted({point["workers"] for point in law["points"]})[:MOST_LINES]
    for colour, n in enumerate(workers):
        own = [point for point in law["points"] if point["workers"] == n]
        own.sort(key=lambda point: float(point["batch_size"]))
        x = [point["batch_size"] for point in own]
        lines.append(
            Line(
                name=f"{n} worker{'s' if n > 1 else ''}",
                x=x,
                y=[1000 * point["measured_s"]["median"] for point in own],
                low=[1000 * point["measured_s"]["least"] for point in own],
                high=[1000 * point["measured_s"]["most"] for point in own],
                colour=colour,
            )
        )
        lines.append(
            Line(
                name=f"law, {n}",
                x=x,
                y=[1000 * point["predicted_s"] for point in own],
                fit=True,
                colour=colour,
            )
        )
    return chart(
        f"ernest-{number}",
        f"Milliseconds of a step ({named(law['values'])})",
        "bars: least to most; broken: Ernest's law",
        lines,
        x_label="batch size (log)",
        log_y=True,
    )


def _time_headline(timed: Sequence[Figures], result: Figures) -> list[Figure]:
    if not timed:
        return []
    best = max(timed, key=lambda row: float(row["images_per_s"]["median"]))
    found = [
        (
            "Fastest",
            f"{plain(round(best['images_per_s']['median']))} images/s",
            named(best["values"]),
        )
    ]
    scaled = [row for row in timed if "speedup" in row and row["workers"] > 1]
    if scaled:
        top = max(scaled, key=lambda row: float(row["speedup"]["median"]))
        found.append(
            (
                "Largest speed-up",
                f"{top['speedup']['median']:.2f} of {top['workers']}",
                f"{named(top['values'])}; efficiency {percent(top['efficiency']['median'], 0)}",
            )
        )
    errors = [
        law["held_out_error"] for law in result["laws"] if law.get("held_out_error") is not None
    ]
    if errors:
        found.append(
            (
                "Error of the laws",
                percent(sum(errors) / len(errors)),
                "mean absolute, each combination predicted from the others",
            )
        )
    if result.get("load_before"):
        found.append(
            (
                "Load before",
                f"{result['load_before']['median']:.1f}",
                "processes that wanted to run, mean of a minute, this sweep's own included",
            )
        )
    found.append(
        (
            "Combinations",
            str(len(result["points"])),
            f"{result['repeats']} repeats, {duration(result['wall_s'])}",
        )
    )
    return found


def _time_row(row: Figures) -> list[str | Cell]:
    if "images_per_s" not in row:
        return [named(row["values"]), Cell(text=row["refused"] or "failed", css="trouble")]
    rate, parts = row["images_per_s"], row["parts"]
    whole = sum(parts.values()) or 1.0
    speed, share, serial = row.get("speedup"), row.get("efficiency"), row.get("over_serial")
    shares = [
        Part(
            colour=part,
            width=round(100 * parts.get(part, 0.0) / whole, 2),
            title=f"{part} {1000 * parts.get(part, 0.0):.3g} ms",
        )
        for part in PARTS
    ]
    return [
        named(row["values"]),
        f"{rate['median']:,.0f}",
        f"{rate['least']:,.0f} to {rate['most']:,.0f}",
        f"{1000 * row['step_s']['median']:.3g} ms",
        "" if speed is None else f"{speed['median']:.2f}",
        "" if share is None else percent(share["median"], 0),
        "" if serial is None else f"{serial['median']:.2f}",
        Cell(parts=shares),
        duration(row["startup_s"]),
        f"{row['steps']:,}",
    ]


def _law(law: Figures) -> Card:
    """A law with its coefficients and, point by point, predicted and measured."""
    scaled = law["law"] == "gustafson"
    values = []
    if "serial_part" in law:
        values.append(("serial part s", interval(law["serial_part"])))
    if law.get("most_speedup"):
        values.append(("S is at most", f"{law['most_speedup']:.3g}"))
    if law.get("batch_per_worker"):
        values.append(("images per worker and step", plain(law["batch_per_worker"])))
    values += [(one["name"], interval(one)) for one in law.get("coefficients", ())]
    if law.get("held_out_error") is not None:
        values.append(("error on held-out combinations", percent(law["held_out_error"])))
    rows = []
    for point in law["points"]:
        measured = point["measured" if scaled else "measured_s"]["median"]
        predicted = point["predicted" if scaled else "predicted_s"]
        held_out = point.get("held_out_s")
        rows.append(
            [
                str(point["workers"]),
                f"{point['batch_size']:,}",
                *([f"{point['images']:,}"] if "whole" in law["law"] else []),
                f"{measured:.2f}" if scaled else f"{1000 * measured:.3g} ms",
                f"{predicted:.2f}" if scaled else f"{1000 * predicted:.3g} ms",
                ""
                if point.get("low_s") is None
                else f"{1000 * point['low_s']:.3g} to {1000 * point['high_s']:.3g}",
                f"{100 * (predicted / measured - 1):+.1f}%",
                ""
                if held_out is None
                else f"{1000 * held_out:.3g} ms ({100 * (held_out / measured - 1):+.1f}%)",
            ]
        )
    coefficients = Table(
        title=law["law"].capitalize(),
        detail="; ".join([law["formula"], *([named(law["values"])] if law["values"] else [])]),
        note=_exact(law) if law["exact"] else "",
        rows=values,
        css="",
    )
    images = ["Images"] if "whole" in law["law"] else []
    head = ["Workers", "Batch", *images, "Measured", "Predicted", "95%", "Off by", "Held out"]
    return Card(blocks=[coefficients, Table(head=head, rows=rows, texts=())])


def _exact(law: Figures) -> str:
    """What a law says of measurements that are no more than its coefficients."""
    scaled = law["law"] == "gustafson"
    pairs = [
        (
            point["measured" if scaled else "measured_s"]["median"],
            point["predicted" if scaled else "predicted_s"],
        )
        for point in law["points"]
    ]
    told = "No more measurements than coefficients: it says nothing of its own fit"
    if all(abs(predicted / measured - 1) < THROUGH for measured, predicted in pairs):
        return f"{told}, and goes through all of them, whatever they are."
    return f"{told}. Coefficients of at least 0 keep it from going through all of them."


def _quality(result: Figures) -> tuple[list[Figure], list[Section]]:
    charts = [
        _accuracies(name, values, result["cells"])
        for name, values in result["varied"].items()
        if name not in ("seed", *result["chosen"]) and len(values) > 1
    ]
    rows = [_cell(cell) for cell in result["cells"]]
    rows += [
        [named(row["values"]), Cell(text=row.get("refused") or row["diverged"], css="trouble")]
        for row in result["trainings"]
        if "refused" in row or "diverged" in row
    ]
    table = Table(head=("", "Test accuracy", "Seeds"), rows=rows)
    return _quality_headline(result), [
        _curves(charts),
        Section(
            id="effects",
            title="What each setting does",
            css="grid",
            lead="Differences in points of test accuracy to the first value, over all pairs of "
            "trainings that differ in this setting alone, with 95% interval. The share of variance "
            "is that of the setting by itself.",
            blocks=[_effect(effect) for effect in result["effects"]],
        ),
        Section(
            id="cells",
            title="Combinations",
            lead="Test accuracy: mean over seeds and half its 95% interval; of a single seed, the "
            f"interval of the number of test images alone. {_chosen(result)}".rstrip(),
            blocks=[table] if rows else [],
        ),
    ]


def _quality_headline(result: Figures) -> list[Figure]:
    best = max(result["cells"], key=lambda cell: float(cell["accuracy"]["mean"]), default=None)
    figures = []
    if best is not None:
        figures.append(
            (
                "Best",
                percent(best["accuracy"]["mean"], 2),
                f"test accuracy; {named(best['values'])}{_rivals(best, result['cells'])}",
            )
        )
    for effect in sorted(result["effects"], key=lambda e: -(e["share_of_variance"] or 0.0))[:3]:
        if effect["share_of_variance"] is not None:
            figures.append(
                (
                    f"Share of {effect['name']}",
                    percent(effect["share_of_variance"], 0),
                    "of the variance between trainings",
                )
            )
    count = str(len(result["trainings"]))
    return [*figures, ("Trainings", count, f"{duration(result['wall_s'])} in all")]


def _rivals(best: Figures, cells: Sequence[Figures]) -> str:
    """How many others the intervals cannot tell from the best."""
    low = best["accuracy"]["low"]
    count = sum(cell is not best and cell["accuracy"]["high"] >= low for cell in cells)
    return (
        f"; intervals of {count} of the {len(cells) - 1} others reach into its own" if count else ""
    )


def _chosen(result: Figures) -> str:
    names = result.get("chosen")
    return f"The best {', '.join(names)} was chosen on the validation part." if names else ""


def _accuracies(name: str, values: Sequence[Any], cells: Sequence[Figures]) -> Chart | None:
    """Accuracy over one setting, a line for each choice of the others."""
    numeric = all(isinstance(value, int | float) for value in values) or all(
        _is_number(value) for value in values
    )
    at = {value: float(value) if numeric else float(k) for k, value in enumerate(values)}
    groups: dict[str, list[Figures]] = {}
    for cell in cells:
        others = {other: value for other, value in cell["values"].items() if other != name}
        groups.setdefault(named(others), []).append(cell)
    lines = [
        Line(
            name=words,
            x=[at[cell["values"][name]] for cell in own],
            y=[cell["accuracy"]["mean"] for cell in own],
            low=[max(cell["accuracy"]["low"], 0.0) for cell in own],
            high=[min(cell["accuracy"]["high"], 1.0) for cell in own],
        )
        for words, own in list(groups.items())[:MOST_LINES]
    ]
    more = len(groups) - len(lines)
    return chart(
        f"accuracy-{name.replace('.', '-')}",
        f"Test accuracy over {name}",
        "bars: 95% interval" + (f"; {more} more lines are in the table" if more > 0 else ""),
        lines,
        x_label=name,
        write=percent_plain,
        zero=False,
        labels=None if numeric else {at[value]: str(value) for value in values},
    )


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value)) and not isinstance(value, bool)
    except (TypeError, ValueError):
        return False


def _cell(cell: Figures) -> list[str | Cell]:
    value = cell["accuracy"]
    half = 50 * (value["high"] - value["low"])
    return [named(cell["values"]), f"{percent(value['mean'], 2)} ± {half:.2f}", str(value["seeds"])]


def _verdict(gap: Figures) -> str:
    """What an interval lets us say, which is nothing where it holds 0."""
    return "above" if gap["low"] > 0 else "below" if gap["high"] < 0 else "not told apart"


def _effect(effect: Figures) -> Table:
    share = effect["share_of_variance"]
    rows = []
    for level in effect["levels"]:
        gap = level.get("difference")
        rows.append(
            (
                str(level["value"]),
                percent(level["accuracy"], 2) if "accuracy" in level else "",
                "" if gap is None else points_of(gap),
                "" if gap is None else _verdict(gap),
                str(level["trainings"]),
            )
        )
    return Table(
        title=effect["name"],
        detail="" if share is None else f"{percent(share, 0)} of the variance",
        head=("", "Accuracy", "Difference", "", "Trainings"),
        rows=rows,
        css="",
    )
