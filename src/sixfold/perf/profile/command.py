"""`sixfold profile`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.core.lazy import lazily
from sixfold.perf.profile.config import ProfileConfig


def summary(result: dict[str, Any]) -> list[str]:
    """What the terminal shows of a profile."""
    from sixfold.core.run_directory import typed
    from sixfold.perf.profile import comparison, table
    from sixfold.perf.profile.results import Profile

    if "comparison" in result:
        pairs = typed(comparison.Comparison, result["comparison"])
        shown = [one for one in comparison.tables(pairs) if one.rows]
        both = f"{result['path']}, compared with {result['compared_with']}"
        return [line for one in shown for line in [*one.lines(), ""]] + [f"profiles   {both}"]
    profile = Profile.of(result)
    tables = [table.engines(profile)] if profile.sides else []
    if profile.step is not None:
        tables += [table.machine(profile.machine)] if profile.machine is not None else []
        tables += [
            table.layers(profile, profile.step),
            table.operators(profile, most=12),
            table.step(profile.step),
            table.critical_path(profile),
            table.memory(profile),
        ]
    if profile.utilisation:
        tables += [table.uses(profile.utilisation), table.startup(profile.startup)]
    lines = [line for shown in tables if shown.rows for line in [*shown.lines(), ""]]
    if unknown := sorted({name for layer in profile.layers for name in layer.unknown}):
        lines.append(f"*          counted as element by element: {', '.join(unknown)}")
    lines += [f"note       {note}" for note in profile.notes]
    if profile.images_per_s:
        lines.append(f"training   {profile.images_per_s:,.0f} images/s, plain steps")
    if profile.trace:
        lines.append(f"trace      {profile.trace} (open it in https://ui.perfetto.dev)")
    lines.append(f"figures    {profile.path}/profile.json")
    return [*lines, f"report     {profile.path}/profile.html"]


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
