"""`sixfold compress`."""

from pathlib import Path
from typing import Any

from sixfold.compression.config import STAGES, CompressConfig
from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.core.lazy import lazily


def summary(result: dict[str, Any]) -> list[str]:
    """The closing lines of a compression."""
    lines = [f"{'':<16} {'bytes':>13} {'ratio':>7}  {'test error':>10}  {'validation':>10}"]
    for name, row in [("dense", result["dense"]), *((s["stage"], s) for s in result["stages"])]:
        ratio = f"{row['ratio']:.1f}x" if "ratio" in row else ""
        lines.append(
            f"{STAGES.get(name, name):<16} {row['bytes']:>13,} {ratio:>7}  "
            f"{_error(row, 'test'):>10}  {_error(row, 'validation'):>10}"
        )
    for name in ("sparsity", "bits"):
        if result[name]:
            lines.append(f"{name:<16} {result[name]}")
    lines += [
        f"model            {Path(result['report']).with_name('model.sixz')}",
        f"report           {result['report']}",
    ]
    return lines


def _error(row: dict[str, Any], part: str) -> str:
    accuracy = row.get(f"{part}_accuracy")
    return "" if accuracy is None else f"{1 - accuracy:.2%}"


COMMAND = ConfigCommand(
    config=CompressConfig,
    function="sixfold.compression.run:compress",
    summary=summary,
    words={"run": ("RUN", "run directory")},
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a compression",
        sections=("compression",),
        write=lambda run, _, result: lazily("sixfold.compression.report:write_page")(
            run / "report.html", result
        ),
    ),
)
