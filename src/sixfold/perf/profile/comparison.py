"""Two profiles next to each other: which layers differ, and which waits."""

from collections.abc import Iterable, Mapping
from typing import Any

from sixfold.core.html.page import Table
from sixfold.perf.profile.table import REASON_NAMES, STEP_NAMES

Plain = dict[str, Any]
LEAST_PERCENT = 0.5
"""Of a step; what differs by less is not shown on its own."""


def compared(first: Plain, second: Plain) -> Plain:
    """What two results of `sixfold profile` differ in, in seconds of a step.

    Layers are told apart by name. Ranks' time is told for each, by reason, as the mean of a step.
    """
    return {
        "step": _pairs(_step(first), _step(second)),
        "layers": sorted(
            _pairs(_layers(first), _layers(second)),
            key=lambda pair: -abs((pair["second_s"] or 0.0) - (pair["first_s"] or 0.0)),
        ),
        "ranks": _pairs(_ranks(first), _ranks(second)),
    }


def _pairs(first: Mapping[str, float], second: Mapping[str, float]) -> list[Plain]:
    names = dict.fromkeys([*first, *second])
    return [
        {"name": name, "first_s": first.get(name), "second_s": second.get(name)} for name in names
    ]


def _step(profile: Plain) -> dict[str, float]:
    step = profile.get("step", {})
    return {name: step[f"{name}_s"] for name in (*_WHOLE, *STEP_NAMES) if f"{name}_s" in step}


_WHOLE = {"clock": "a step whose layers are timed", "plain": "a plain step"}


def _layers(profile: Plain) -> dict[str, float]:
    return {
        layer["name"]: layer["forward_s"] + layer["backward_s"] + layer["around_s"]
        for layer in profile.get("layers", [])
    }


def _ranks(profile: Plain) -> dict[str, float]:
    return {
        f"{rank['rank']} {REASON_NAMES.get(reason, reason)}": seconds / max(rank["steps"], 1)
        for rank in profile.get("utilisation", [])
        for reason, seconds in rank["in_steps"].items()
        if seconds > 0
    }


def tables(comparison: Plain) -> list[Table]:
    """Steps, layers and ranks; small differences of layers are put together."""
    whole = max(
        (pair["first_s"] or 0.0 for pair in comparison["step"] if pair["name"] == "clock"),
        default=0.0,
    )
    large: list[Plain] = []
    small: list[Plain] = []
    for pair in comparison["layers"]:
        change = abs((pair["second_s"] or 0.0) - (pair["first_s"] or 0.0))
        (large if 100 * change >= LEAST_PERCENT * whole else small).append(pair)
    if small:
        large.append(
            {
                "name": f"{len(small)} others",
                "first_s": sum(pair["first_s"] or 0.0 for pair in small),
                "second_s": sum(pair["second_s"] or 0.0 for pair in small),
            }
        )
    names = _WHOLE | STEP_NAMES
    return [
        _table("layer", large),
        _table("of a step", [pair | {"name": names[pair["name"]]} for pair in comparison["step"]]),
        _table("rank, mean of a step", comparison["ranks"]),
    ]


def _table(what: str, pairs: Iterable[Plain]) -> Table:
    return Table(
        head=(what, "ms", "ms, compared", "difference", "%"),
        rows=[_row(pair) for pair in pairs],
        texts=range(1),
    )


def _row(pair: Plain) -> list[str]:
    first, second = pair["first_s"], pair["second_s"]
    change = (second or 0.0) - (first or 0.0)
    return [
        pair["name"],
        "" if first is None else f"{1e3 * first:.3f}",
        "" if second is None else f"{1e3 * second:.3f}",
        f"{1e3 * change:+.3f}",
        f"{100 * change / first:+.1f}" if first else "",
    ]
