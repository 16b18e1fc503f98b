"""Whether steps take as long as they were predicted to, for `--replan`.

Rank 0 looks at its own clock. A deviation is not told before two windows of steps in a row lie on
the same side of the interval, so neither a slow step nor a slow second counts.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

WINDOW = 20
"""Steps between two looks; the middle one of them is compared."""
MARGIN = 0.1
"""By which the middle of a window must be outside of the interval of single steps."""
WARM_UP = 10
"""Steps after a start that are not looked at."""
PARTS = ("compute_s", "update_s", "data_s", "communication_s", "waiting_s")
"""Parts of a step's time that `TrainLog` knows."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What steps should take."""

    ranks: int  # for which it holds
    low_s: float  # below which one step in twenty is
    high_s: float  # above which one in twenty is


class StepWatch:
    """Rank 0's look at the clock."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._left = WARM_UP
        self._times: deque[dict[str, float]] = deque(maxlen=2 * WINDOW)

    def took(self, ranks: int, times: Mapping[str, float]) -> None:
        """A step was made by so many ranks."""
        if ranks != self._expected.ranks:  # after a loss; the prediction is for others
            self._times.clear()
            self._left = WARM_UP
        elif self._left:
            self._left -= 1
        else:
            parts = {name: times[name] for name in PARTS}
            self._times.append(parts | {"step_s": sum(parts.values())})

    def deviation(self) -> dict[str, float] | None:
        """The middle of each part of the last steps' times, if they are not as expected."""
        if len(self._times) < 2 * WINDOW:
            return None
        steps = [times["step_s"] for times in self._times]
        halves = median(steps[:WINDOW]), median(steps[WINDOW:])
        is_slow = min(halves) > self._expected.high_s * (1 + MARGIN)
        is_quick = max(halves) < self._expected.low_s * (1 - MARGIN)
        if not (is_slow or is_quick):
            return None
        names = ("step_s", *PARTS)
        return {name: round(median(one[name] for one in self._times), 9) for name in names}
