"""`sixfold profile`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.core.lazy import lazily
from sixfold.perf.profile.config import ProfileConfig


def summary(result: dict[str, Any]) -> list[str]:
    """What the terminal shows of a profile."""
    from sixfold.perf.profile import comparison, table

    if "comparison" in result:
        shown = [one for one in comparison.tables(result["comparison"]) if one.rows]
        both = f"{result['path']}, compared with {result['compared_with']}"
        return [line for one in shown for line in [*one.lines(), ""]] + [f"profiles   {both}"]
    tables = [table.engines(result)] if "sides" in result else []
    if "layers" in result:
        tables += [
            table.machine(result["machine"]),
            table.layers(result),
            table.operators(result, most=12),
            table.step(result),
            table.critical_path(result),
            table.memory(result),
        ]
    if "utilisation" in result:
        tables += [table.uses(result["utilisation"]), table.startup(result["startup"])]
    lines = [line for shown in tables if shown.rows for line in [*shown.lines(), ""]]
    layers = result.get("layers", [])
    if unknown := sorted({name for layer in layers for name in layer.get("unknown", [])}):
        lines.append(f"*          counted as element by element: {', '.join(unknown)}")
    lines += [f"note       {note}" for note in result.get("notes", [])]
    if result.get("images_per_s"):
        lines.append(f"training   {result['images_per_s']:,.0f} images/s, plain steps")
    if "trace" in result:
        lines.append(f"trace      {result['trace']} (open it in https://ui.perfetto.dev)")
    lines.append(f"figures    {result['path']}/profile.json")
    return [*lines, f"report     {result['path']}/profile.html"]


COMMAND = ConfigCommand(
    config=ProfileConfig,
    function="sixfold.perf.profile.run:profile",
    summary=summary,
    words={"run": ("RUN", "directory of a training that is only read")},
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a profile",
        sections=("profiling",),
        figures="profile.json",
        page="profile.html",
        write=lambda run, _, result: lazily("sixfold.perf.profile.report:write_profile")(
            run, result
        ),
        remedy="profile again",
    ),
)
