"""The report of a compression: what each stage saved and cost, layer by layer, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import MISSING, percent, plain
from sixfold.core.html.frame import render_page

_STAGES = {"prune": "pruned", "share": "weights shared", "code": "coded"}
_LETTERS = {"prune": "P", "share": "PQ", "code": "PQH"}


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """A stage, or the network before.

    Attributes:
        name: of the stage.
        size: bytes of its file.
        width: of its bar, in percent of the dense network.
        ratio: how many times smaller, or empty.
        test: error on the test part.
        validation: error on the validation part.
    """

    name: str
    size: str
    width: float
    ratio: str
    test: str
    validation: str


def write_page(path: Path, result: Mapping[str, Any]) -> None:
    """Write the report.

    Args:
        path: of the file.
        result: what `result.json` holds.

    Raises:
        RunError: if it cannot be written.
    """
    write_atomically(path, render(result).encode())


def render(result: Mapping[str, Any]) -> str:
    """The page as text."""
    stages = [stage["stage"] for stage in result["stages"]]
    return render_page(
        __package__,
        "page.html",
        result=result,
        rows=stage_rows(result),
        columns=[_STAGES[stage] for stage in stages],
        letters=[_LETTERS[stage] for stage in stages],
        layers=[_layer(row, stages) for row in result["layers"]],
        figures=_figures(result),
        trials=_trials(result.get("search")),
        target=_error(result.get("search", {}).get("target")),
    )


def stage_rows(result: Mapping[str, Any]) -> list[StageRow]:
    """The network before, and after every stage."""
    rows = [("dense", result["dense"]), *((s["stage"], s) for s in result["stages"])]
    whole = result["dense"]["bytes"]
    return [
        StageRow(
            name=_STAGES.get(name, name),
            size=plain(row["bytes"]),
            width=round(100 * row["bytes"] / whole, 2),
            ratio=f"{row['ratio']:.1f}" if "ratio" in row else "",
            test=_error(row.get("test_accuracy")),
            validation=_error(row.get("validation_accuracy")),
        )
        for name, row in rows
    ]


def _error(accuracy: float | None) -> str:
    return MISSING if accuracy is None else percent(1 - accuracy, 2)


def _figures(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The headline: name, value, detail."""
    last, dense = result["stages"][-1], result["dense"]
    found = [
        ("Smaller by", f"{last['ratio']:.1f}x", f"{dense['bytes']:,} to {last['bytes']:,} bytes"),
        (
            "Test error",
            _error(last.get("test_accuracy")),
            f"{_error(dense.get('test_accuracy'))} before",
        ),
        (
            "Weights kept",
            percent(_kept(result), 1),
            "of convolutions and linear layers",
        ),
    ]
    if result["entropy_bytes"]:
        over = result["stream_bytes"] / result["entropy_bytes"] - 1
        found.append(
            (
                "Above entropy",
                percent(over, 2),
                f"{result['stream_bytes']:,} bytes of symbols by {last['stage']}",
            )
        )
    return found


def _kept(result: Mapping[str, Any]) -> float:
    rows = [row for row in result["layers"] if row["values"] or row["gap_bits"]]
    return float(sum(row["kept"] for row in rows) / max(sum(row["weights"] for row in rows), 1))


def _layer(row: Mapping[str, Any], stages: list[str]) -> dict[str, Any]:
    """A layer as its line of the table shows it."""
    coded = bool(row["values"] or row["gap_bits"])
    return {
        "name": row["name"],
        "weights": f"{row['weights']:,}",
        "kept": percent(row["kept"] / max(row["weights"], 1), 1) if coded else "",
        "values": f"{row['values']:,}" if row["values"] else "",
        "stages": [
            {
                "value_bits": f"{stage['value_bits']:.2f}" if coded else "",
                "position_bits": f"{stage['position_bits']:.2f}" if coded else "",
                "bytes": f"{stage['bytes']:,}",
            }
            for stage in (row["stages"][name] for name in stages)
        ],
    }


def _trials(search: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """A search's trials, from large to small."""
    trials = sorted((search or {}).get("trials", []), key=lambda trial: -trial["kept"])
    return [
        {
            "kept": percent(trial["kept"], 2),
            "error": _error(trial["accuracy"]),
            "bytes": f"{trial['bytes']:,}" if trial["reached"] else "above the bound",
            "bits": ", ".join(
                f"{name.removesuffix('.weight')} {bits}"
                for name, bits in trial.get("bits", {}).items()
            ),
        }
        for trial in trials
    ]
