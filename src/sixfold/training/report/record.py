"""What a run directory says, read with suspicion: every file may be absent, partial or damaged."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, parse_json_lines
from sixfold.core.html.json_lines import Table, batches, number, read_table, tabulate

TRAINING = ("step", "time", "epoch", "loss", "accuracy", "lr", "images_per_s")
"""Fields of a step's line in `metrics.jsonl`."""

EVALUATION = ("step", "time", "epoch", "eval_loss", "eval_accuracy")
"""Fields of an evaluation's line in `metrics.jsonl`."""

PHASES = ("data", "compute", "communication", "waiting", "update", "scheduler")
"""What the time of a step is divided into; `<phase>_s` in the timeline."""

_TIMELINE_BYTES = 32 << 20  # how much of all timelines together is read: more than a second's worth
_FILES = ("config.json", "metrics.jsonl", "result.json", "timeline")


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Where one rank's time went."""

    rank: int  # the rank
    step: NDArray[np.float64]  # (n,) steps
    seconds: NDArray[np.float64]  # (n, 6) seconds of each step in each of `PHASES`
    sampled: float  # share of the file that was read


@dataclass(kw_only=True)
class Record:
    """A run as its directory tells it."""

    name: str  # name of the directory
    config: dict[str, dict[str, Any]]  # settings by section
    result: dict[str, Any]  # the figures at the end; empty if there are none
    finished: bool  # whether there is a usable `result.json`
    training: Table  # the logged steps
    evaluations: dict[str, Table]  # part ("validation", "test") -> its evaluations
    timelines: list[Timeline]  # one per rank, by rank
    # What is told of each merge of weights, by step; empty where none were merged.
    merges: list[dict[str, Any]] = field(default_factory=list)
    # What a reader should know about missing or damaged files, in sentences.
    notes: list[str] = field(default_factory=list)

    def figure(self, name: str) -> float:
        """A number of the result, or NaN."""
        return number(self.result.get(name))

    def setting(self, section: str, name: str) -> Any:
        """A setting, or None."""
        return self.config.get(section, {}).get(name)


def read_record(run_dir: Path) -> Record:
    """Read a run directory; a `UserError` if it does not exist or holds nothing of a run."""
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such run directory")
    if not any((run_dir / name).exists() for name in _FILES):
        raise UserError(
            f"{run_dir} is not a run directory: it holds none of {', '.join(_FILES)}; "
            "give the directory that `sixfold train --out` wrote"
        )
    notes: list[str] = []
    config = _read_object(run_dir / "config.json", notes)
    result = _read_object(run_dir / "result.json", notes)
    training, evaluations = _read_metrics(run_dir / "metrics.jsonl", notes)
    if result is None:
        failure = _read_object(run_dir / "failure.json", notes) or {}
        notes.insert(0, _unfinished(config or {}, training, failure))
    else:
        notes += _losses(result)
    return Record(
        name=run_dir.absolute().name,
        config={key: value for key, value in (config or {}).items() if isinstance(value, dict)},
        result=result or {},
        finished=result is not None,
        training=training,
        evaluations=evaluations,
        timelines=_read_timelines(run_dir / "timeline", notes),
        merges=_read_merges(run_dir / "merges.jsonl", notes),
        notes=notes,
    )


def _losses(result: dict[str, Any]) -> list[str]:
    restarts = number(result.get("restarts"))
    if not restarts > 0:
        return []
    servers = result.get("server_losses")
    if not isinstance(servers, list):  # of a process group, which starts again as a whole
        return [
            f"The run was restarted {_count(int(min(restarts, 1e9)), 'time')} after a lost rank."
        ]
    lost = number(result.get("lost_updates"))
    made_again = (
        f" {_count(int(min(lost, 1e9)), 'update')} of a server's slice were not in its snapshot "
        "and were made again."
        if lost > 0
        else " No update was lost."
    )
    workers = int(min(max(restarts - len(servers), 0), 1e9))
    return [
        f"{_count(workers, 'worker')} and {_count(len(servers), 'parameter server')} died and were "
        f"replaced, while the others went on.{made_again}"
    ]


def _unfinished(config: dict[str, Any], training: Table, failure: dict[str, Any]) -> str:
    lines = failure.get("lines")
    if isinstance(lines, list) and lines:
        told = "\n".join(str(line) for line in lines[:40])
        text = f"This run has no result. Its last start ended so: {told}\n"
    else:
        text = "This run has no result: it was stopped, failed, or is still running."
    if not len(training):
        return text
    steps = number((config.get("training") or {}).get("steps"))
    goal = f" of {steps:,.0f}" if math.isfinite(steps) else ""
    return f"{text} The last logged step is {training['step'][-1]:,.0f}{goal}."


def _read_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """The JSON object in a file; None, with a note, if there is none."""
    if not path.exists():
        if path.name not in ("result.json", "failure.json"):
            notes.append(f"{path.name} is missing.")
        return None
    try:
        value = parse_json(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} could not be read: {error}.")
        return None
    if not isinstance(value, dict):
        notes.append(f"{path.name} could not be read: it holds no JSON object.")
        return None
    return value


def _read_metrics(path: Path, notes: list[str]) -> tuple[Table, dict[str, Table]]:
    """The logged steps, and the evaluations of each part."""
    rows: list[list[float]] = []
    evaluations: dict[str, list[list[float]]] = {}
    skipped = 0
    try:
        for lines in batches(path):
            objects, bad = parse_json_lines(lines)
            skipped += bad
            for entry in objects:
                part = entry.get("part")
                if "logged" in entry:  # by a callback
                    continue
                if isinstance(part, str) and "eval_loss" in entry:
                    row = [number(entry.get(name)) for name in EVALUATION]
                    where = evaluations.setdefault(part, [])
                else:
                    row = [number(entry.get(name)) for name in TRAINING]
                    where = rows
                if math.isfinite(row[0]):
                    where.append(row)
                else:
                    skipped += 1
    except FileNotFoundError:
        notes.append("metrics.jsonl is missing: there are no curves.")
    except OSError as error:
        notes.append(f"metrics.jsonl could not be read: {error.strerror or error}.")
    else:
        if not rows and not evaluations:
            notes.append("metrics.jsonl is empty: there are no curves.")
    if skipped:
        notes.append(_skipped("metrics.jsonl", skipped))
    training = tabulate(rows, TRAINING)
    if len(bad_steps := training["step"][~np.isfinite(training["loss"])]):
        notes.append(
            f"The loss is not a finite number at {_count(len(bad_steps), 'logged step')}; "
            f"the first is step {bad_steps[0]:,.0f}."
        )
    return training, {
        part: tabulate(found, EVALUATION) for part, found in evaluations.items() if found
    }


def _read_merges(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The merges, by step; of several lines for one step the last."""
    found: dict[float, dict[str, Any]] = {}
    skipped = 0
    try:
        for lines in batches(path):
            objects, bad = parse_json_lines(lines)
            skipped += bad
            for entry in objects:
                step = number(entry.get("step"))
                if math.isfinite(step):
                    found[step] = entry
                else:
                    skipped += 1
    except FileNotFoundError:
        return []
    except OSError as error:
        notes.append(f"merges.jsonl could not be read: {error.strerror or error}.")
    if skipped:
        notes.append(_skipped("merges.jsonl", skipped))
    return [found[step] for step in sorted(found)]


def _read_timelines(folder: Path, notes: list[str]) -> list[Timeline]:
    paths = {
        int(match[1]): path
        for path in folder.glob("rank-*.jsonl")
        if (match := re.fullmatch(r"rank-(\d{1,9})\.jsonl", path.name))
    }
    names = ("step", *(f"{phase}_s" for phase in PHASES))
    found, skipped = [], 0
    for rank, path in sorted(paths.items()):
        limit = max(1 << 17, _TIMELINE_BYTES // len(paths))
        try:
            table = read_table(path, names, limit_bytes=limit)
        except OSError as error:
            notes.append(f"timeline/{path.name} could not be read: {error.strerror or error}.")
            continue
        skipped += table.skipped
        seconds = np.stack([table[name] for name in names[1:]], axis=1)
        seconds = np.where(np.isfinite(seconds), np.maximum(seconds, 0.0), 0.0)
        if len(table):
            found.append(
                Timeline(rank=rank, step=table["step"], seconds=seconds, sampled=table.sampled)
            )
    if skipped:
        notes.append(_skipped("the timelines", skipped))
    if not found:
        notes.append("There is no timeline: where the time went is not known.")
    return found


def _skipped(where: str, lines: int) -> str:
    return f"{_count(lines, 'line')} of {where} could not be read and were left out."


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
