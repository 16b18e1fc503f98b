"""`--replan`: what a training's own steps tell of the plan, and whether another way is better now.

A plan is for the machine as it was when it was measured. Where steps take longer or shorter than
was predicted, their parts say why. Corrected by that, the predictions for other numbers of ranks
are compared again; what has been seen of a number in this run counts more than any prediction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sixfold.core.html.axes import duration
from sixfold.perf.plan.candidates import count_workers

LEAST_GAIN = 0.1
"""By which another way must be quicker: a change costs a start of the ranks."""
MOST_CHANGES = 3
"""In one training. After these it is only told what steps take."""

SCALED = ("batch_s", "low_s", "high_s", "mean_s", "compute_s", "exchange_s", "waiting_s")
"""Of a way, what grows with its step."""

Way = Mapping[str, Any]
"""A prediction as `plan.json` has it."""


def look_again(plan: Mapping[str, Any], slots: int, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The plan as it is after a deviation: the way to go on with, and what was found.

    Args:
        plan: as `plan.json` has it.
        slots: ranks that can compute at the same time.
        figures: from the training: `steps` done, and the `deviation` of the last ones.
    """
    chosen, found, looks = plan["chosen"], figures["deviation"], list(plan.get("looks", []))
    seen = {look["workers"]: look["step_s"] for look in looks}
    seen[chosen["workers"]] = found["step_s"]
    ways = _alternatives(plan)
    base = next((way for way in ways if way["workers"] == chosen["workers"]), chosen)
    now = {way["workers"]: _corrected(way, base, found, slots) for way in ways}
    now |= seen
    best = min(now, key=lambda workers: (now[workers], workers))
    changes = sum(look["workers"] != look["then"] for look in looks)
    is_better = now[best] < (1 - LEAST_GAIN) * found["step_s"]
    if best == chosen["workers"] or not is_better or changes == MOST_CHANGES:
        best = chosen["workers"]
    after = next((way for way in ways if way["workers"] == best), chosen)
    factor = now.get(best, found["step_s"]) / after["batch_s"]
    times = {name: factor * after[name] for name in SCALED}
    text = (
        f"step {figures['steps']:,}: steps take {duration(found['step_s'])} where "
        f"{duration(chosen['low_s'])} to {duration(chosen['high_s'])} were expected: "
        f"{_reason(chosen, found)}; "
        + _decision(best, chosen["workers"], times["batch_s"], len(now), changes)
    )
    look = {
        "step": figures["steps"],
        "workers": chosen["workers"],
        "then": best,
        **found,
        "expected_s": [round(chosen[name], 9) for name in ("low_s", "high_s")],
        "text": text,
    }
    return {**plan, "chosen": {**after, **times}, "looks": [*looks, look]}


def _alternatives(plan: Mapping[str, Any]) -> Sequence[Way]:
    """Ways with the bits of the one that was chosen, between which a training may change."""
    if plan["chosen"]["strategy"] != "sync":
        return []
    return [way for way in plan["ways"] if way["strategy"] == "sync" and way["fits"]]


def _own(found: Mapping[str, float]) -> float:
    return found["compute_s"] + found["update_s"] + found["data_s"]


def _corrected(way: Way, chosen: Way, found: Mapping[str, float], slots: int) -> float:
    """A way's step, if what slows or quickens the present one holds for it too.

    Both as they were predicted at first.
    """
    # As many cores as would make the present ranks as slow as they are.
    slowness = _own(found) / chosen["compute_s"]
    cores = min(chosen["workers"], slots) / slowness
    crowd = max(min(way["workers"], slots) / max(cores, 1e-9), 1.0) if slowness > 1 else slowness
    own_s: float = way["compute_s"] * crowd
    if way["workers"] == 1:
        return own_s
    together_s: float = way["exchange_s"] + way["waiting_s"]
    expected_s = chosen["exchange_s"] + chosen["waiting_s"]
    if chosen["workers"] > 1 and expected_s > 0:
        together_s *= (found["communication_s"] + found["waiting_s"]) / expected_s
    return own_s + together_s


def _reason(chosen: Way, found: Mapping[str, float]) -> str:
    """Which part differs, in words."""
    own_s, together_s = _own(found), found["communication_s"] + found["waiting_s"]
    expected_s = chosen["exchange_s"] + chosen["waiting_s"]
    parts = {
        "own": own_s - chosen["compute_s"],
        "exchanges": found["communication_s"] - chosen["exchange_s"],
        "waiting": found["waiting_s"] - chosen["waiting_s"],
    }
    is_slow = found["step_s"] > chosen["batch_s"]
    largest = (max if is_slow else min)(parts, key=lambda name: parts[name])
    own = f"a rank's own work takes {duration(own_s)} instead of {duration(chosen['compute_s'])}"
    together = (
        f"exchanges and waiting take {duration(together_s)} instead of {duration(expected_s)}"
    )
    if largest == "own":
        why = "its cores are busy with something else, or slower" if is_slow else "cores are freer"
        if found["data_s"] > 0.5 * max(parts["own"], 0.0) and is_slow:
            why = f"{duration(found['data_s'])} of it waiting for images"
        return f"{own} ({why}), {together}"
    why = "a slower link" if largest == "exchanges" else "another rank is slower"
    if not is_slow:
        why = "a quicker link" if largest == "exchanges" else "ranks are more alike"
    return f"{together} ({why}), {own}"


def _decision(best: int, now: int, step_s: float, known: int, changes: int) -> str:
    if best != now:
        return f"going on with {count_workers(best)}, {duration(step_s)} a step expected"
    if known < 2:
        return "nothing else has the same bits: going on as it is"
    if changes == MOST_CHANGES:
        return f"after {changes} changes there is no other: going on with {now}"
    return f"no other number of workers is expected to be quicker: going on with {now}"
