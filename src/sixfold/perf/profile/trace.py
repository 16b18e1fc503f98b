"""What all ranks did as one file in Chrome's trace format, which Perfetto opens.

Every rank is a process with three tracks: its steps, the phases of each step, and, where a
profile has watched it, the layers of one step with torch's operators below them. The launcher is
a process of its own, with the use of processors as counters. Times are microseconds from the
launch.

The phases of a step are logged as sums. They are drawn in the order in which a step makes them:
data, compute up to the first exchange, waiting for the slowest, transfer, the rest of compute,
update; where data and compute, or compute and exchanges, alternate, the lengths are right and the
order within the step is not.

Format: "Trace Event Format", https://perfetto.dev/docs/getting-started/other-formats.
"""

import json
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.perf.profile.timelines import RankLine, RankStep, Timelines
from sixfold.perf.profile.utilisation import divide_waiting

Event = dict[str, Any]

STEPS, PHASES, LAYERS = 1, 2, 3  # tracks of a rank

LAUNCHER = 1_000_000  # number of the launcher's process in the trace; ranks have their own, from 1
LayerSpan = tuple[str, str, str, float, float]
"""Layer, direction, operator ("" for the layer itself), begin and end in Unix seconds."""


def trace_events(
    lines: Timelines,
    layers: dict[int, list[LayerSpan]] | None = None,
    samples: dict[str, Any] | None = None,
) -> list[Event]:
    """All events of a run: what ranks logged, watched spans by rank, samples as plain data."""
    origin = _origin(lines)
    waited = divide_waiting(lines)
    events = _launcher(lines, origin)
    for rank in lines.ranks:
        events += _rank(rank, waited[rank.rank], origin)
        for span in (layers or {}).get(rank.rank, []):
            events.append(_layer(rank.rank, span, origin))
    if samples:
        events += _counters(samples, lines, origin)
    return events


def write_trace(path: Path, events: list[Event]) -> None:
    """Write the file, whole or not at all."""
    text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":"))
    write_atomically(path, text.encode())


def _origin(lines: Timelines) -> float:
    begins = [rank.steps[0].begin for rank in lines.ranks]
    entered = [rank.entered for rank in lines.ranks if rank.entered is not None]
    launched = [] if lines.launched is None else [lines.launched]
    return min([*launched, *entered, *begins])


def _rank(rank: RankLine, waited: dict[int, tuple[float, float]], origin: float) -> list[Event]:
    pid = rank.rank + 1
    where = f" on {rank.host}" if rank.host else ""
    number = f", pid {rank.pid}" if rank.pid else ""
    events = [
        _meta("process_name", pid, 0, {"name": f"rank {rank.rank}{where}{number}"}),
        _meta("process_sort_index", pid, 0, {"sort_index": rank.rank}),
    ]
    for track, name in ((STEPS, "steps"), (PHASES, "phases"), (LAYERS, "layers")):
        events.append(_meta("thread_name", pid, track, {"name": name}))
        events.append(_meta("thread_sort_index", pid, track, {"sort_index": track}))
    if rank.entered is not None:
        first = rank.steps[0].begin
        ready = rank.ready if rank.ready is not None else first
        stretches = [("set up", rank.entered, ready), ("first images", ready, first)]
        for name, begin, end in stretches[: 2 if first > ready else 1]:
            events.append(_span(name, "startup", pid, STEPS, begin - origin, end - origin))
    for step in rank.steps:
        begin = step.begin - origin
        facts = {"step": step.step, "exchanges": step.exchanges, "cpu_s": step.cpu_s}
        name = f"step {step.step}"
        events.append(_span(name, "step", pid, STEPS, begin, begin + step.seconds, facts))
        events += _phases(step, waited[step.step], pid, begin)
    return events


def _phases(step: RankStep, waited: tuple[float, float], pid: int, begin: float) -> list[Event]:
    straggler, moving = waited
    phases = step.phases
    compute = phases["compute"]
    before = compute
    if step.arrived_s is not None:
        before = min(max(step.arrived_s - phases["data"] - phases["scheduler"], 0.0), compute)
    order = (
        ("scheduler", phases["scheduler"]),
        ("data", phases["data"]),
        ("compute", before),
        ("straggler", straggler),
        ("communication", moving),
        ("compute", compute - before),
        ("update", phases["update"]),
    )
    events = []
    for name, seconds in order:
        if seconds > 0:
            events.append(_span(name, name, pid, PHASES, begin, begin + seconds))
            begin += seconds
    return events


def _layer(rank: int, span: LayerSpan, origin: float) -> Event:
    layer, direction, function, begin, end = span
    name = function or (layer if direction == "around" else f"{layer} {direction}")
    category = "operator" if function else "layer"
    return _span(name, category, rank + 1, LAYERS, begin - origin, end - origin, {"layer": layer})


def _launcher(lines: Timelines, origin: float) -> list[Event]:
    number = f", pid {lines.launcher_pid}" if lines.launcher_pid else ""
    events = [
        _meta("process_name", LAUNCHER, 0, {"name": f"launcher{number}"}),
        _meta("process_sort_index", LAUNCHER, 0, {"sort_index": -1}),
        _meta("thread_name", LAUNCHER, STEPS, {"name": "start-up and evaluations"}),
    ]
    if lines.launched is not None and lines.called is not None:
        a, b = lines.launched - origin, lines.called - origin
        events.append(_span("checks, data prepared", "startup", LAUNCHER, STEPS, a, b))
        entered = [rank.entered for rank in lines.ranks if rank.entered is not None]
        if entered:
            c = max(entered) - origin
            events.append(_span("processes started, ranks met", "startup", LAUNCHER, STEPS, b, c))
    for found in lines.evaluations:
        end = found.end - origin
        name = f"evaluation ({found.part})"
        if found.seconds is not None:
            begin = end - found.seconds
            events.append(_span(name, "evaluation", LAUNCHER, STEPS, begin, end))
        else:
            where = {"pid": LAUNCHER, "tid": STEPS, "ts": _us(end)}
            events.append({"name": name, "ph": "i", "s": "g", **where})
    return events


def _counters(samples: dict[str, Any], lines: Timelines, origin: float) -> list[Event]:
    """Use of processors and GPUs over time."""
    names = {str(rank.pid): f"rank {rank.rank}" for rank in lines.ranks if rank.pid}
    names |= {str(lines.launcher_pid): "launcher"} if lines.launcher_pid else {}
    programs = samples.get("processes", {})
    events = []
    for at, shares in samples.get("processors", []):
        values: dict[str, float] = {}
        for pid, share in shares.items():
            name = names.get(pid, str(programs.get(pid, "other")))
            values[name] = round(values.get(name, 0.0) + share, 4)
        where = {"pid": LAUNCHER, "ts": _us(at - origin)}
        events.append({"name": "processors in use", "ph": "C", **where, "args": values})
    for at, uses in samples.get("gpus", []):
        values = {f"GPU {index}": use[0] for index, use in uses.items()}
        where = {"pid": LAUNCHER, "ts": _us(at - origin)}
        events.append({"name": "GPUs in use", "ph": "C", **where, "args": values})
    return events


def _span(
    name: str,
    category: str,
    pid: int,
    tid: int,
    begin_s: float,
    end_s: float,
    facts: dict[str, Any] | None = None,
) -> Event:
    event = {"name": name, "cat": category, "ph": "X", "pid": pid, "tid": tid}
    event |= {"ts": _us(begin_s), "dur": max(_us(end_s) - _us(begin_s), 0.0)}
    return event | ({"args": facts} if facts else {})


def _meta(name: str, pid: int, tid: int, facts: dict[str, Any]) -> Event:
    return {"name": name, "ph": "M", "pid": pid, "tid": tid, "args": facts}


def _us(seconds: float) -> float:
    return round(1e6 * seconds, 3)
