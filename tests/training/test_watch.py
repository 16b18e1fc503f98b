"""Whether steps take as long as they were predicted to."""

from __future__ import annotations

import pytest

from sixfold.training.watch import PARTS, WARM_UP, WINDOW, Expected, StepWatch


def watch_of(seconds: list[float], ranks: int = 2) -> StepWatch:
    watch = StepWatch(Expected(ranks=2, low_s=0.9, high_s=1.1))
    for step_s in seconds:
        watch.took(ranks, dict.fromkeys(PARTS, step_s / len(PARTS)))
    return watch


WARM = [50.0] * WARM_UP


@pytest.mark.parametrize("step_s", [0.5, 2.0])
def test_two_windows_on_one_side_are_a_deviation(step_s: float) -> None:
    found = watch_of(WARM + [step_s] * 2 * WINDOW).deviation()
    assert found is not None
    assert found["step_s"] == pytest.approx(step_s)
    assert found["compute_s"] == pytest.approx(step_s / len(PARTS))


@pytest.mark.parametrize(
    "seconds",
    [
        WARM + [1.0] * 3 * WINDOW,
        WARM + [1.15] * 3 * WINDOW,  # within the margin
        WARM + [2.0] * (2 * WINDOW - 1),  # too few
        WARM + [2.0] * WINDOW + [1.0] * WINDOW,  # a slow moment
        WARM + [0.5] * WINDOW + [2.0] * WINDOW,
        WARM + [9.0 if step % 3 == 0 else 1.0 for step in range(3 * WINDOW)],
    ],
)
def test_what_passes_is_none(seconds: list[float]) -> None:
    assert watch_of(seconds).deviation() is None


def test_steps_of_fewer_ranks_are_not_judged() -> None:
    assert watch_of(WARM + [2.0] * 3 * WINDOW, ranks=1).deviation() is None
