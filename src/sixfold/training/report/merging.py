"""How workers that train apart have moved, merge by merge: charts, and a table for every merge."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sixfold.core.html.axes import MISSING, compact, linear, percent, percent_tick, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.json_lines import label, number
from sixfold.core.html.page import Card, Cell, Fold, Section, Table, Text
from sixfold.core.html.series import Floats, spread
from sixfold.training.report.record import Record

MAX_ROUNDS = 40  # so many merges are shown in tables, evenly spread; `merges.jsonl` has all
MAX_LAYERS = 60  # rows of a merge's table
MAX_WORKERS = 64  # rows of the table of workers
WHOLE = "all weights"  # the name of the statistics over all layers
_DRAWN = 320
_DOTTED = 60


@dataclass(frozen=True, kw_only=True)
class Merging:
    """The section on merges."""

    lead: str  # the main facts in a few sentences
    charts: list[Chart]  # change and agreement by step
    workers: Table  # in the last merge, then serial and merged network
    tables: list[Fold]  # a merge's layers and workers, the last merge first
    hidden: int  # how many merges have no table

    def section(self) -> Section:
        """As the page shows it."""
        legend = (
            "Figures are the mean over workers; below, the least and the greatest. Signs alike is "
            "the share of workers on the majority's side."
        )
        layers: list[Any] = [Text(lines=[legend], css="legend"), *self.tables]
        if self.hidden:
            more = f"{self.hidden:,} merges in between are in merges.jsonl only."
            layers.append(Text(lines=[more], css="legend"))
        blocks = [*self.charts, Card(css="wide", title="Layers, merge by merge", blocks=layers)]
        if self.workers.rows:
            blocks.insert(len(self.charts), Card(css="wide", blocks=[self.workers]))
        return Section(id="merges", title="Merges", lead=self.lead, css="grid", blocks=blocks)


def merge_section(record: Record) -> Merging | None:
    """The section, or None if nothing was merged."""
    merges = [merge for merge in record.merges if _layer(merge, WHOLE)]
    if not merges:
        return None
    keep = spread(len(merges), MAX_ROUNDS)[::-1]
    return Merging(
        lead=_lead(record, merges),
        charts=[chart for chart in (_change_chart(merges), _agreement_chart(merges)) if chart],
        workers=_workers(merges[-1], record.result, "Workers in the last round"),
        tables=[_table(merges[index], last=index == keep[0]) for index in keep],
        hidden=len(merges) - len(keep),
    )


def _layer(merge: dict[str, Any], name: str) -> dict[str, Any]:
    layers = merge.get("layers")
    found = layers.get(name) if isinstance(layers, dict) else None
    return found if isinstance(found, dict) else {}


def _serial(merge: dict[str, Any], name: str) -> dict[str, Any]:
    serial = merge.get("serial")
    return _layer(serial, name) if isinstance(serial, dict) else {}


def _numbers(value: Any) -> Floats:
    return np.array([number(item) for item in value] if isinstance(value, list) else [], float)


def _mean(value: Any) -> float:
    found = _numbers(value)
    found = found[np.isfinite(found)]
    return float(found.mean()) if len(found) else math.nan


def _lead(record: Record, merges: Sequence[dict[str, Any]]) -> str:
    """What was merged, how, and what became of it."""
    last = merges[-1]
    rule = label(last.get("merge")).replace("_", " ")
    told = [f"{len(merges):,} merges by the rule {rule or 'unknown'}."]
    agreement = number(_layer(last, WHOLE).get("agreement"))
    if math.isfinite(agreement):
        told.append(f"In the last, workers agreed on {percent(agreement)} of signs.")
    if any(isinstance(merge.get("moved"), dict) for merge in merges):
        moved, maps = _moved(merges)
        told.append(
            f"Of {maps:,.0f} feature maps that were aligned, over all merges and workers, "
            f"{moved:,.0f} had moved" + (": their order was preserved." if not moved else ".")
        )
    serial, own = record.figure("serial_test_accuracy"), record.figure("test_accuracy")
    if math.isfinite(serial) and math.isfinite(own):
        told.append(
            f"Serial training over the same images ends at {percent(serial, 2)} on the test part, "
            f"the merged network at {percent(own, 2)}."
        )
    return " ".join(told)


def _moved(merges: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Feature maps that had moved, and that were looked at, over merges and workers."""
    moved = maps = 0.0
    for merge in merges:
        found, sizes = merge.get("moved"), merge.get("maps")
        if not (isinstance(found, dict) and isinstance(sizes, dict)):
            continue
        for layer, counts in found.items():
            values = _numbers(counts)
            size = number(sizes.get(layer))
            if math.isfinite(size) and np.isfinite(values).all():
                moved += float(values.sum())
                maps += size * len(values)
    return moved, maps


def _change_chart(merges: Sequence[dict[str, Any]]) -> Chart | None:
    lines = [
        (
            "mean of the workers",
            "training",
            [_mean(_layer(m, WHOLE).get("percent")) for m in merges],
        )
    ]
    if any(_serial(merge, WHOLE) for merge in merges):
        blocks = [_mean(_serial(merge, WHOLE).get("percent")) for merge in merges]
        every = [number(_serial(merge, WHOLE).get("percent_all")) for merge in merges]
        lines += [("serial, a worker's images", "validation", blocks)]
        lines += [("serial, all images", "test", every)]
    return _chart(
        "change",
        "Change of the weights in a round",
        "size of the delta in percent of the weights before, all layers together",
        merges,
        [(name, css, np.array(values) / 100) for name, css, values in lines],
    )


def _agreement_chart(merges: Sequence[dict[str, Any]]) -> Chart | None:
    """How far workers agree on the direction of weights."""
    values = np.array([number(_layer(merge, WHOLE).get("agreement")) for merge in merges])
    lines = [("signs alike", "training", values)]
    cosines = np.array(
        [
            number(m["serial"].get("cosine")) if isinstance(m.get("serial"), dict) else math.nan
            for m in merges
        ]
    )
    if np.isfinite(cosines).any():
        lines.append(("cosine of merged and serial delta", "test", cosines))
    return _chart(
        "agreement",
        "Agreement between workers",
        "share of workers on the majority's side, mean over weights" + _by_chance(merges[-1]),
        merges,
        lines,
    )


def _by_chance(merge: dict[str, Any]) -> str:
    """What agreement would be if every worker moved every weight at random."""
    n = len(_numbers(merge.get("examples")))
    if not 2 <= n <= 1000 or isinstance(merge.get("groups"), list):
        return ""
    sides = sum(math.comb(n, up) * max(up, n - up) for up in range(n + 1))
    return f"; by chance {percent(sides / (n * 2**n))}"


def _chart(
    name: str,
    title: str,
    note: str,
    merges: Sequence[dict[str, Any]],
    lines: Sequence[tuple[str, str, Floats]],
) -> Chart | None:
    steps = np.array([number(merge.get("step")) for merge in merges])
    values = np.concatenate([line for _, _, line in lines])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    words = "; ".join(
        f"{line} from {percent(known[0])} to {percent(known[-1])}"
        for line, _, found in lines
        if len(known := found[np.isfinite(found)])
    )
    keep = spread(len(steps), _DRAWN)
    number_of = {float(step): k + 1 for k, step in enumerate(steps)}
    return Chart(
        id=f"merge-{name}",
        title=title,
        note=note,
        summary=f"{title}: {words}.",
        x=linear(0.0, float(steps.max()), compact, snug=True, least=1),
        y=linear(min(0.0, float(values.min())), float(values.max()), percent_tick),
        x_label="step",
        series=[
            Series(name=line, x=steps[keep], y=found[keep], colour=css, dots=len(keep) <= _DOTTED)
            for line, css, found in lines
        ],
        write=lambda value: percent(value, 2),
        head=lambda step: f"merge {number_of[step]}, step {plain(step)}",
    )


def _range(value: Any, write: Callable[[float], str]) -> Cell:
    """The mean of a list, and its ends where they differ as text."""
    found = _numbers(value)
    found = found[np.isfinite(found)]
    if not len(found):
        return Cell(text=MISSING)
    low, high = write(float(found.min())), write(float(found.max()))
    spread_of = f"{low} to {high}" if low != high else ""
    return Cell(text=write(float(found.mean())), detail=spread_of)


def _small(value: float) -> str:
    return plain(float(f"{value:.3g}")) if math.isfinite(value) else MISSING


def _percent(value: float) -> str:
    return f"{value:.3g}%" if math.isfinite(value) else MISSING


def _table(merge: dict[str, Any], *, last: bool) -> Fold:
    layers = merge.get("layers")
    names = list(layers) if isinstance(layers, dict) else []
    columns: list[tuple[str, Callable[[str], str | Cell]]] = [
        ("mean |delta|", lambda name: _range(_layer(merge, name).get("absolute"), _small)),
        ("in percent", lambda name: _range(_layer(merge, name).get("percent"), _percent)),
        ("signs alike", lambda name: percent(number(_layer(merge, name).get("agreement")))),
    ]
    if isinstance(merge.get("serial"), dict):
        columns += [
            (
                "serial blocks, in percent",
                lambda name: _range(_serial(merge, name).get("percent"), _percent),
            ),
            (
                "serial all, in percent",
                lambda name: _percent(number(_serial(merge, name).get("percent_all"))),
            ),
        ]
    if isinstance(moved := merge.get("moved"), dict):
        columns.append(("maps moved", lambda name: _moved_here(moved, name)))
    if isinstance(taken := merge.get("taken"), dict):
        columns.append(("maps taken, by worker", lambda name: Cell(detail=_counts(taken, name))))
    step = plain(number(merge.get("step")))
    rows = [[label(name), *(write(name) for _, write in columns)] for name in names[:MAX_LAYERS]]
    blocks: list[Any] = [Table(head=["Parameter", *(title for title, _ in columns)], rows=rows)]
    workers = _workers(merge, {})
    if workers.rows and not last:  # the last merge's are shown above
        blocks.append(workers)
    if (hidden := len(names) - MAX_LAYERS) > 0:
        blocks.append(Text(lines=[f"and {hidden} more; merges.jsonl has all."], css="legend"))
    title = f"Merge {plain(number(merge.get('round')))}, after step {step}"
    return Fold(summary=title, blocks=blocks, open=last)


def _counts(counts: dict[str, Any], name: str) -> str:
    """A layer's maps, worker by worker; told beside its weight."""
    found = counts.get(name.removesuffix(".weight")) if name.endswith("weight") else None
    if not isinstance(found, list):
        return ""
    return " ".join(plain(value) for value in _numbers(found[:MAX_WORKERS]))


def _moved_here(moved: dict[str, Any], name: str) -> Cell:
    """How many of a layer's maps had moved, over all workers."""
    counts = _counts(moved, name)
    total = float(np.nansum(_numbers(moved.get(name.removesuffix(".weight"))))) if counts else 0.0
    return Cell(text=plain(total) if counts else "", detail=counts if total else "")


def _workers(merge: dict[str, Any], result: dict[str, Any], title: str = "") -> Table:
    """Every worker in a merge, and serial training; `result` has figures of the last merge."""
    own, serial = _layer(merge, WHOLE), _serial(merge, WHOLE)
    examples, scores = merge.get("examples"), merge.get("scores")
    accuracies = result.get("workers_test_accuracy")
    columns: list[tuple[str, list[str]]] = [
        ("images", [plain(value) for value in _numbers(examples)]),
        ("change", [_percent(value) for value in _numbers(own.get("percent"))]),
        ("mean |delta|", [_small(value) for value in _numbers(own.get("absolute"))]),
        ("serial change", [_percent(value) for value in _numbers(serial.get("percent"))]),
        ("serial |delta|", [_small(value) for value in _numbers(serial.get("absolute"))]),
        ("validation accuracy", [percent(value, 2) for value in _firsts(scores)]),
        ("test accuracy", [percent(value, 2) for value in _numbers(accuracies)]),
    ]
    columns = [(title, texts) for title, texts in columns if texts]
    count = max((len(texts) for _, texts in columns), default=0)
    rows = [
        [f"worker {worker}", *(t[worker] if worker < len(t) else MISSING for _, t in columns)]
        for worker in range(min(count, MAX_WORKERS))
    ]
    if isinstance(accuracies, list):
        everything = {
            "serial change": _percent(number(serial.get("percent_all"))),
            "serial |delta|": _small(number(serial.get("absolute_all"))),
            "images": plain(float(np.nansum(_numbers(examples)))),
        }
        for name, figure, facts in (
            ("serial, all images", "serial_test_accuracy", everything),
            ("merged", "test_accuracy", {}),
        ):
            facts = facts | {"test accuracy": percent(number(result.get(figure)), 2)}
            rows.append([name, *(facts.get(column, "") for column, _ in columns)])
    return Table(title=title, head=["Worker", *(column for column, _ in columns)], rows=rows)


def _firsts(scores: Any) -> Floats:
    pairs = scores if isinstance(scores, list) else []
    return _numbers([pair[0] if isinstance(pair, list) and pair else None for pair in pairs])
