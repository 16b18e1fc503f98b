"""What ranks did and when, read from the time lines of a run directory, finished or not.

Every rank logs for each step when it began, when it came to the first exchange with the others,
and the seconds of each phase (`sixfold.training.log`). Files are read with suspicion: what is
absent or damaged is left out.
"""

import re
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json_lines
from sixfold.core.html.json_lines import number
from sixfold.core.run_directory import read_json

_NAME = r"rank-\d{1,9}\.jsonl"
PHASES = ("data", "compute", "communication", "waiting", "update", "scheduler")


@dataclass(frozen=True, kw_only=True)
class RankStep:
    """One step of one rank."""

    step: int  # its number, from 1
    begin: float  # Unix seconds
    # seconds from there to the first exchange with another rank; None without one
    arrived_s: float | None
    exchanges: int  # how many there were
    phases: dict[str, float]  # name -> seconds
    cpu_s: float | None  # processor time of the rank's process; None where that was not logged

    @property
    def seconds(self) -> float:
        """All phases together."""
        return sum(self.phases.values())

    @property
    def end(self) -> float:
        """Unix seconds."""
        return self.begin + self.seconds


@dataclass(frozen=True, kw_only=True)
class RankLine:
    """What one rank did."""

    rank: int  # its number
    host: str  # where it ran; empty if not known
    pid: int  # its process there; 0 if not known
    entered: float | None  # Unix seconds when the rank's function was called; None if not known
    ready: float | None  # Unix seconds when data and network were there; None if not known
    steps: tuple[RankStep, ...]  # in order


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation, as rank 0 logged it."""

    part: str  # of the data
    end: float  # Unix seconds
    seconds: float | None  # how long it took; None if not known


@dataclass(frozen=True, kw_only=True)
class Timelines:
    """What all ranks of a run did."""

    launched: float | None  # Unix seconds when the launcher began; None if not known
    called: float | None  # Unix seconds when it called for the ranks; None if not known
    launcher_pid: int  # its process; 0 if not known
    ranks: tuple[RankLine, ...]  # those that left a time line
    evaluations: tuple[Evaluation, ...]  # in order
    skipped: int  # lines that could not be read


def read_timelines(path: Path) -> Timelines:
    """Read a run directory."""
    folder = path / "timeline"
    files = [f for f in sorted(folder.glob("rank-*.jsonl")) if re.fullmatch(_NAME, f.name)]
    if not files:
        raise UserError(
            f"{path} holds no timeline/rank-*.jsonl: give the directory of a training "
            "(`sixfold train --out`)"
        )
    metrics, skipped = _lines(path / "metrics.jsonl")
    ends = {
        int(line["step"]): _number(line.get("time"))
        for line in metrics
        if "loss" in line and _number(line.get("step")) is not None
    }
    ranks = []
    for file in files:
        rank, bad = _rank(file, ends)
        skipped += bad
        ranks.append(rank)
    launcher = read_json(folder / "launcher.json") or {}
    return Timelines(
        launched=_number(launcher.get("launched")),
        called=_number(launcher.get("called")),
        launcher_pid=int(_number(launcher.get("pid")) or 0),
        ranks=_one_clock(tuple(rank for rank in ranks if rank.steps)),
        evaluations=_evaluations(metrics),
        skipped=skipped,
    )


def _rank(file: Path, ends: dict[int, float | None]) -> tuple[RankLine, int]:
    """A rank's time line, and how many of its lines could not be read."""
    lines, bad = _lines(file)
    # A resumed run repeats some steps: the last counts.
    found = [step for line in lines if (step := _step(line, ends)) is not None]
    steps = {step.step: step for step in found}
    about = read_json(file.with_suffix(".json")) or {}
    entered, ready = _number(about.get("entered")), _number(about.get("ready"))
    if entered is not None and steps and entered > min(s.begin for s in steps.values()):
        entered = ready = None  # of a later start, which found steps that were made before
    rank = RankLine(
        rank=int(file.stem.removeprefix("rank-")),
        host=str(about.get("host", "")),
        pid=int(_number(about.get("pid")) or 0),
        entered=entered,
        ready=ready,
        steps=tuple(steps[number] for number in sorted(steps)),
    )
    return rank, bad + len(lines) - len(found)


def _one_clock(ranks: tuple[RankLine, ...]) -> tuple[RankLine, ...]:
    """Put hosts whose clocks differ on the clock of the first rank's host.

    Ranks leave a common sum at about the same moment: the median difference of those moments is
    what the clocks differ by.
    """
    left = [
        {step.step: at for step in rank.steps if (at := _left(step)) is not None} for rank in ranks
    ]
    moved = []
    for rank, own in zip(ranks, left, strict=True):
        apart = [at - left[0][step] for step, at in own.items() if step in left[0]]
        off = statistics.median(apart) if apart and rank.host != ranks[0].host else 0.0
        moved.append(
            replace(
                rank,
                entered=None if rank.entered is None else rank.entered - off,
                ready=None if rank.ready is None else rank.ready - off,
                steps=tuple(replace(step, begin=step.begin - off) for step in rank.steps),
            )
        )
    return tuple(moved)


def _left(step: RankStep) -> float | None:
    """When a rank had done with a step's exchanges."""
    if step.arrived_s is None:
        return None
    exchanged = step.phases["communication"] + step.phases["waiting"]
    return step.begin + step.arrived_s + exchanged


def _step(line: dict[str, Any], ends: dict[int, float | None]) -> RankStep | None:
    number = _number(line.get("step"))
    if number is None:
        return None
    phases = {name: max(_number(line.get(f"{name}_s")) or 0.0, 0.0) for name in PHASES}
    begin = _number(line.get("begin"))
    if begin is None:  # of a run before that was logged
        end = ends.get(int(number))
        if end is None:
            return None
        begin = end - sum(phases.values())
    return RankStep(
        step=int(number),
        begin=begin,
        arrived_s=_number(line.get("arrived_s")),
        exchanges=int(_number(line.get("exchanges")) or 0),
        phases=phases,
        cpu_s=_number(line.get("cpu_s")),
    )


def _evaluations(metrics: list[dict[str, Any]]) -> tuple[Evaluation, ...]:
    found = []
    for line in metrics:
        at = _number(line.get("time"))
        if "eval_loss" in line and at is not None:
            part, seconds = str(line.get("part", "")), _number(line.get("eval_s"))
            found.append(Evaluation(part=part, end=at, seconds=seconds))
    return tuple(found)


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects in a file of JSON lines, and how many lines held none."""
    try:
        return parse_json_lines(path.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return [], 0


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    found = number(value)
    return found if abs(found) < 1e15 else None
