"""How predicted numbers lie beside the true ones, and how well labels are ranked."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.html.axes import compact, linear, percent, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.json_lines import label, number
from sixfold.core.html.page import Card, Section, Table
from sixfold.training.report.record import Record

MOST_ROWS = 200  # targets or labels that are listed


def predictions_section(record: Record) -> Section | None:
    """Charts and a table of the predictions on the test part; None where there are none."""
    result = record.result
    blocks: list[Any] = [
        *_scatters(_entries(result.get("scatter"))),
        *_curves(_entries(result.get("precision_recall"))),
        *_tables(result),
    ]
    if not blocks:
        return None
    return Section(
        id="predictions",
        title="Predictions",
        lead="Of the test images: what the network says beside what is true.",
        css="grid",
        blocks=blocks,
    )


def _entries(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _floats(value: Any) -> NDArray[np.float64]:
    values = value if isinstance(value, list) else []
    return np.array([number(one) for one in values], np.float64)


def _scatters(entries: list[dict[str, Any]]) -> list[Chart]:
    found = []
    for place, entry in enumerate(entries):
        true, told = _floats(entry.get("true")), _floats(entry.get("predicted"))
        good = np.isfinite(true[: len(told)]) & np.isfinite(told[: len(true)])
        if not good.any():
            continue
        true, told = true[: len(good)][good], told[: len(good)][good]
        order = np.argsort(true, kind="stable")
        true, told = true[order], told[order]
        name = label(entry.get("name"))
        ends = np.array([min(true.min(), told.min()), max(true.max(), told.max())])
        if ends[0] == ends[1]:
            ends += [-0.5, 0.5]
        error = told - true
        size = max(float(np.abs(error).max()), 1e-12)
        x = linear(float(ends[0]), float(ends[1]), compact, snug=True)
        found += [
            Chart(
                id=f"predicted-{place}",
                title=f"{name}: predicted over true",
                note=f"{len(true):,} test images; the line is where both are equal",
                summary=f"{name}: predicted values over true ones from {plain(float(true[0]))} to "
                f"{plain(float(true[-1]))}.",
                x=x,
                y=linear(float(ends[0]), float(ends[1]), compact),
                x_label=f"true {name}",
                series=[
                    Series(name="equal", x=ends, y=ends, kind="broken", hover=False),
                    Series(name="predicted", x=true, y=told, kind="dots", colour="validation"),
                ],
            ),
            Chart(
                id=f"residuals-{place}",
                title=f"{name}: predicted less true",
                note="residuals",
                summary=f"{name}: residuals of up to {plain(float(f'{size:.3g}'))}.",
                x=x,
                y=linear(-size, size, compact),
                x_label=f"true {name}",
                series=[
                    Series(name="none", x=ends, y=[0.0, 0.0], kind="broken", hover=False),
                    Series(name="residual", x=true, y=error, kind="dots", colour="other"),
                ],
            ),
        ]
    return found


def _curves(entries: list[dict[str, Any]]) -> list[Chart]:
    colours = ("training", "validation", "other", "update", "data", "communication", "waiting")
    series = []
    for place, entry in enumerate(entries[: len(colours)]):
        recall, precision = _floats(entry.get("recall")), _floats(entry.get("precision"))
        if len(recall) and len(recall) == len(precision):
            name = label(entry.get("name"))
            series.append(Series(name=name, x=recall, y=precision, colour=colours[place]))
    if not series:
        return []
    return [
        Chart(
            id="precision-recall",
            title="Precision and recall",
            note="as the threshold falls from certain to any score",
            summary="Precision over recall of "
            + ", ".join(one.name for one in series)
            + " on the test images.",
            x=linear(0.0, 1.0, compact, snug=True),
            y=linear(0.0, 1.0, compact),
            x_label="recall",
            series=series,
            write=percent,
        )
    ]


def _tables(result: dict[str, Any]) -> list[Card]:
    """Errors of each target, or how each label fared."""
    rows = [
        (
            label(one.get("name")),
            f"MAE {_plain(one.get('mae'))}, RMSE {_plain(one.get('rmse'))}",
            f"R² {_plain(one.get('r2'))}",
        )
        for one in _entries(result.get("per_target"))[:MOST_ROWS]
    ]
    title = "Errors by target"
    if not rows:
        title = "Labels"
        rows = [
            (
                label(one.get("name")),
                f"{_plain(one.get('correct'))} of {_plain(one.get('images'))} found, "
                f"{_plain(one.get('predicted'))} predicted",
                f"average precision {_plain(one.get('average_precision'))}",
            )
            for one in _entries(result.get("per_label"))[:MOST_ROWS]
        ]
    return [Card(blocks=[Table(title=title, rows=rows)])] if rows else []


def _plain(value: Any) -> str:
    found = number(value)
    return plain(float(f"{found:.4g}")) if math.isfinite(found) else "unknown"
