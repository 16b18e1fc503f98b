"""Two profiles next to each other: which layers differ, and which waits."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sixfold.core.html.page import Table
from sixfold.perf.profile.results import Profile
from sixfold.perf.profile.table import REASON_NAMES, STEP_NAMES

LEAST_PERCENT = 0.5
"""Of a step; what differs by less is not shown on its own."""

_WHOLE = {"clock": "a step whose layers are timed", "plain": "a plain step"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same thing in both, in seconds of a step; None where one lacks it."""

    name: str
    first_s: float | None
    second_s: float | None

    @property
    def change_s(self) -> float:
        """By how much the second is longer."""
        return (self.second_s or 0.0) - (self.first_s or 0.0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two profiles differ in."""

    step: list[Pair]
    layers: list[Pair]  # the largest difference first
    ranks: list[Pair]  # each rank's time by reason, as the mean of a step


def compared(first: Profile, second: Profile) -> Comparison:
    """Compare layers by their names, parts of a step, and ranks' time by reason."""
    layers = _pairs(_layers(first), _layers(second))
    return Comparison(
        step=_pairs(_step(first), _step(second)),
        layers=sorted(layers, key=lambda pair: -abs(pair.change_s)),
        ranks=_pairs(_ranks(first), _ranks(second)),
    )


def _pairs(first: Mapping[str, float], second: Mapping[str, float]) -> list[Pair]:
    names = dict.fromkeys([*first, *second])
    return [Pair(name=name, first_s=first.get(name), second_s=second.get(name)) for name in names]


def _step(profile: Profile) -> dict[str, float]:
    step = profile.step
    return {} if step is None else {name: step.part(name) for name in (*_WHOLE, *STEP_NAMES)}


def _layers(profile: Profile) -> dict[str, float]:
    return {one.name: one.forward_s + one.backward_s + one.around_s for one in profile.layers}


def _ranks(profile: Profile) -> dict[str, float]:
    return {
        f"{use.rank} {REASON_NAMES.get(reason, reason)}": seconds / max(use.steps, 1)
        for use in profile.utilisation
        for reason, seconds in use.in_steps.items()
        if seconds > 0
    }


def tables(comparison: Comparison) -> list[Table]:
    """Steps, layers and ranks; small differences of layers are put together."""
    whole = next((pair.first_s or 0.0 for pair in comparison.step if pair.name == "clock"), 0.0)
    large: list[Pair] = []
    small: list[Pair] = []
    for pair in comparison.layers:
        (large if 100 * abs(pair.change_s) >= LEAST_PERCENT * whole else small).append(pair)
    if small:
        first_s = sum(pair.first_s or 0.0 for pair in small)
        second_s = sum(pair.second_s or 0.0 for pair in small)
        large.append(Pair(name=f"{len(small)} others", first_s=first_s, second_s=second_s))
    names = _WHOLE | STEP_NAMES
    steps = [dataclasses.replace(pair, name=names[pair.name]) for pair in comparison.step]
    return [
        _table("layer", large),
        _table("of a step", steps),
        _table("rank, mean of a step", comparison.ranks),
    ]


def _table(what: str, pairs: Iterable[Pair]) -> Table:
    return Table(
        head=(what, "ms", "ms, compared", "difference", "%"),
        rows=[_row(pair) for pair in pairs],
        texts=range(1),
    )


def _row(pair: Pair) -> list[str]:
    first, second = pair.first_s, pair.second_s
    return [
        pair.name,
        "" if first is None else f"{1e3 * first:.3f}",
        "" if second is None else f"{1e3 * second:.3f}",
        f"{1e3 * pair.change_s:+.3f}",
        f"{100 * pair.change_s / first:+.1f}" if first else "",
    ]
