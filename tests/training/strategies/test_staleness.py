"""The largest stable learning rate under staleness, against the closed form and the recursion."""

import math

import pytest

from sixfold.training.strategies.staleness import advice, largest_stable, slowdown


@pytest.mark.parametrize("staleness", [0, 1, 2, 3, 7, 30])
def test_without_momentum_it_is_the_closed_form(staleness: int) -> None:
    exact = 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))
    assert largest_stable(staleness, 0.0) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_without_staleness_it_is_that_of_heavy_ball(momentum: float) -> None:
    assert largest_stable(0, momentum) == pytest.approx(2 * (1 + momentum), rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("staleness", [0, 1, 3, 7])
def test_the_recursion_converges_below_and_diverges_above(staleness: int, momentum: float) -> None:
    limit = largest_stable(staleness, momentum)
    assert _size_after(0.97 * limit, staleness, momentum) < 1e-3
    assert _size_after(1.03 * limit, staleness, momentum) > 1e3


def _size_after(a: float, staleness: int, momentum: float, updates: int = 8000) -> float:
    """|w| after so many updates from 1."""
    w = [1.0] * (staleness + 2)
    for _ in range(updates):
        w.append(w[-1] + momentum * (w[-1] - w[-2]) - a * w[-1 - staleness])
        if abs(w[-1]) > 1e12:
            return math.inf
    return max(map(abs, w[-50:]))


def test_more_staleness_and_more_momentum_cost_more() -> None:
    assert slowdown(0, 0.9) == 1.0
    assert 1 < slowdown(1, 0.5) < slowdown(1, 0.9) < slowdown(4, 0.9) < slowdown(100, 0.9)


def test_the_advice_names_the_factor() -> None:
    assert "38 times smaller" in advice(1, 0.9)
    assert "momentum 0)" not in advice(3, 0.0)
