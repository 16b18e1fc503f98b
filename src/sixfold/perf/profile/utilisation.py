"""Where every rank's time went, from the launch of a run to the end of its last step.

- start-up: until the rank's first step began;
- compute, update: the step's own work;
- data: waiting for images;
- straggler: waiting for the slowest rank. A step that all ranks end with one sum tells it from
  the transfer by the ranks' arrivals: a rank waits for the slowest from its own arrival until the
  last one's. Where ranks exchange in the middle of a step (divided networks, synchronised norms)
  it is the time in which nothing came from a peer that was waited for;
- communication: the rest of the exchanges, moving bytes;
- scheduler: between being ready for work and being told what to do; for workers of parameter
  servers, who ask for leases. Ranks of a process group know what to do for the whole run;
- between steps: evaluations, checkpoints, restarts.
"""

from collections import defaultdict
from dataclasses import dataclass

from sixfold.perf.profile.timelines import RankLine, RankStep, Timelines

REASONS = (
    "startup",
    "compute",
    "update",
    "data",
    "communication",
    "straggler",
    "scheduler",
    "between",
)
"""What a rank's time is divided into."""

STARVED = 0.85
"""Part of a processor below which a rank that computes is said to have too little of it."""

ONE_SUM = 2  # exchanges of a step that ends with one sum: slices are added, then gathered


@dataclass(frozen=True, kw_only=True)
class Use:
    """How one rank's time was used."""

    rank: int  # its number
    host: str  # where it ran
    steps: int  # how many it made
    seconds: dict[str, float]  # reason -> seconds, from the launch to the end of the last step
    in_steps: dict[str, float]  # the same without start-up and what is between steps
    # processor time of the rank's process over the time of its steps; None if that was not logged
    cpu_share: float | None


def utilisation(lines: Timelines) -> list[Use]:
    """How every rank's time was used."""
    divided = divide_waiting(lines)
    return [_use(lines, rank, divided[rank.rank]) for rank in lines.ranks]


def divide_waiting(lines: Timelines) -> dict[int, dict[int, tuple[float, float]]]:
    """Rank -> step -> (seconds of waiting for the slowest, seconds of transfer)."""
    arrivals: dict[int, list[float]] = defaultdict(list)
    for rank in lines.ranks:
        for step in rank.steps:
            if step.arrived_s is not None:
                arrivals[step.step].append(step.begin + step.arrived_s)
    return {
        rank.rank: {
            step.step: _waited(step, arrivals[step.step], len(lines.ranks)) for step in rank.steps
        }
        for rank in lines.ranks
    }


def _waited(step: RankStep, arrivals: list[float], ranks: int) -> tuple[float, float]:
    waiting, moving = step.phases["waiting"], step.phases["communication"]
    together = step.arrived_s is not None and len(arrivals) == ranks > 1
    if not together or step.exchanges > ONE_SUM:
        return waiting, moving
    assert step.arrived_s is not None
    late = max(arrivals) - (step.begin + step.arrived_s)
    straggler = min(max(late, 0.0), waiting + moving)
    return straggler, waiting + moving - straggler


def _use(lines: Timelines, rank: RankLine, divided: dict[int, tuple[float, float]]) -> Use:
    inside = dict.fromkeys(REASONS, 0.0)
    for step in rank.steps:
        straggler, moving = divided[step.step]
        inside["straggler"] += straggler
        inside["communication"] += moving
        for name in ("compute", "update", "data", "scheduler"):
            inside[name] += step.phases[name]
    first, last, in_steps = rank.steps[0], rank.steps[-1], sum(inside.values())
    whole = dict(inside)
    began = lines.launched if lines.launched is not None else rank.entered
    if began is not None:
        whole["startup"] = max(first.begin - began, 0.0)
    whole["between"] = max(last.end - first.begin - in_steps, 0.0)
    spent = [step.cpu_s for step in rank.steps if step.cpu_s is not None]
    known = len(spent) == len(rank.steps) and in_steps > 0
    return Use(
        rank=rank.rank,
        host=rank.host,
        steps=len(rank.steps),
        seconds=whole,
        in_steps=inside,
        cpu_share=sum(spent) / in_steps if known else None,
    )


def startup_parts(lines: Timelines) -> dict[str, float]:
    """What the start-up of the slowest rank consisted of, in seconds; empty if not known."""
    ranks = [rank for rank in lines.ranks if rank.entered is not None and rank.ready is not None]
    if lines.launched is None or lines.called is None or not ranks:
        return {}
    slowest = max(ranks, key=lambda rank: rank.steps[0].begin)
    assert slowest.entered is not None
    assert slowest.ready is not None
    return {
        "launcher: checks, data prepared": lines.called - lines.launched,
        "engine: processes started, ranks met": slowest.entered - lines.called,
        "rank: data opened, network built": slowest.ready - slowest.entered,
        "first images": slowest.steps[0].begin - slowest.ready,
    }


def notes_on(uses: list[Use]) -> list[str]:
    """What a reader should know before believing the times."""
    starved = []
    for use in uses:
        busy = use.in_steps["compute"] + use.in_steps["update"]
        had = (use.cpu_share or 0.0) * sum(use.in_steps.values())
        if use.cpu_share is not None and busy > 0 and had < STARVED * busy:
            starved.append((use.rank, had / busy))
    if not starved:
        return []
    ranks = ", ".join(f"{rank} ({100 * share:.0f}%)" for rank, share in starved[:8])
    return [
        f"While they computed, ranks had less than {100 * STARVED:.0f}% of a processor: rank "
        f"{ranks}. Something else kept this machine busy, and times are longer than they need be."
    ]
