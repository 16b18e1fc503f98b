"""The report of a compression: what each stage saved and cost, layer by layer, in one HTML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.compression.config import STAGES
from sixfold.core.files import write_atomically
from sixfold.core.html.axes import MISSING, percent, plain
from sixfold.core.html.page import Cell, Figure, Page, Part, Section, Table, pairs


def write_page(path: Path, result: Mapping[str, Any]) -> None:
    """Write the report."""
    write_atomically(path, render(result).encode())


def render(result: Mapping[str, Any]) -> str:
    """The page as text."""
    search = result.get("search") or {}
    settings = [("Sparsity", result["sparsity"]), ("Bits", result["bits"])]
    settings = [(name, str(value)) for name, value in settings if value]
    return Page(
        title=f"{result['model']} compressed · Sixfold",
        eyebrow="Sixfold compression report",
        heading=f"{result['model']}: {result['ratio']:.1f} times smaller",
        subtitle=f"{result['data']} · coder {result['coder']}",
        notes=[
            f"{name} is no weight of a convolution or linear layer: stored as it is"
            for name in result["unsupported"]
        ],
        figures=_figures(result),
        sections=[
            Section(
                title="Stages",
                lead="Sizes are those of whole files: architecture, positions, codebooks, code "
                "tables, biases and batch-norm included. The dense network counts its tensors "
                "alone.",
                blocks=[stage_table(result)],
            ),
            Section(
                title="Layers",
                lead="Bits are per stored entry, fillers included: of its value, and of its "
                "position. Where all elements of a layer are stored, positions take nothing. Bytes "
                "include the codebook.",
                blocks=[_layers(result)],
            ),
            Section(
                title="Search",
                lead=f"The smallest file whose validation error is at most "
                f"{_error(search['target'])}. The test split played no role."
                if search
                else "",
                blocks=[_trials(search)] if search else [],
            ),
            Section(title="Settings", blocks=[pairs([*settings, ("Coder", result["coder"])])]),
        ],
        files="result.json next to it holds every figure.",
    ).html()


def stage_table(result: Mapping[str, Any]) -> Table:
    """The network before, and after every stage."""
    stages = [("dense", result["dense"]), *((s["stage"], s) for s in result["stages"])]
    whole = result["dense"]["bytes"]
    rows: list[list[str | Cell]] = [
        [
            STAGES.get(name, name),
            Cell(parts=[Part(colour="length", width=round(100 * row["bytes"] / whole, 2))]),
            plain(row["bytes"]),
            f"{row['ratio']:.1f}" if "ratio" in row else "",
            _error(row.get("test_accuracy")),
            _error(row.get("validation_accuracy")),
        ]
        for name, row in stages
    ]
    head = ("", "size", "bytes", "ratio", "test error", "validation error")
    return Table(head=head, rows=rows, texts=(0, 1))


def _error(accuracy: float | None) -> str:
    return MISSING if accuracy is None else percent(1 - accuracy, 2)


def _figures(result: Mapping[str, Any]) -> list[Figure]:
    last, dense = result["stages"][-1], result["dense"]
    found = [
        ("Smaller by", f"{last['ratio']:.1f}x", f"{dense['bytes']:,} to {last['bytes']:,} bytes"),
        (
            "Test error",
            _error(last.get("test_accuracy")),
            f"{_error(dense.get('test_accuracy'))} before",
        ),
        ("Weights kept", percent(_kept(result), 1), "of convolutions and linear layers"),
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


def _layers(result: Mapping[str, Any]) -> Table:
    stages = [stage["stage"] for stage in result["stages"]]
    rows = []
    for layer in result["layers"]:
        coded = bool(layer["values"] or layer["gap_bits"])
        row = [
            layer["name"],
            f"{layer['weights']:,}",
            percent(layer["kept"] / max(layer["weights"], 1), 1) if coded else "",
            f"{layer['values']:,}" if layer["values"] else "",
        ]
        for stage in (layer["stages"][name] for name in stages):
            row += [f"{stage[key]:.2f}" if coded else "" for key in ("value_bits", "position_bits")]
            row.append(f"{stage['bytes']:,}")
        rows.append(row)
    return Table(
        head=(
            *("Tensor", "Weights", "Kept", "Values"),
            *(["value bits", "position bits", "bytes"] * len(stages)),
        ),
        rows=rows,
        groups=[("", 4), *((STAGES[stage], 3) for stage in stages)],
    )


def _trials(search: Mapping[str, Any]) -> Table:
    rows = [
        (
            percent(trial["kept"], 2),
            _error(trial["accuracy"]),
            f"{trial['bytes']:,}" if trial["reached"] else "above the bound",
            ", ".join(
                f"{name.removesuffix('.weight')} {bits}"
                for name, bits in trial.get("bits", {}).items()
            ),
        )
        for trial in sorted(search.get("trials", []), key=lambda trial: -trial["kept"])
    ]
    head = ("Weights kept", "Validation error", "Bytes", "Bits")
    return Table(head=head, rows=rows, texts=(0, 3), css="")
