"""Errors, orders and baselines, where the answer is known."""

from __future__ import annotations

import pytest
from benchmarks.prediction_errors import errors, kendall_tau, regret
from benchmarks.prediction_peers import alpha_beta, ernest, ernest_s, paleo

from sixfold.perf.plan.links import affine


def test_errors_are_parts_of_what_was_measured() -> None:
    found = errors([1.1, 1.2, 0.7], [1.0, 1.0, 1.0])
    assert found.mean == pytest.approx(0.2)
    assert found.median == pytest.approx(0.2)
    assert found.bias == pytest.approx(0.0)


def test_orders() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall_tau([3, 2, 1], [10, 20, 30]) == -1.0
    assert kendall_tau([2, 1, 3], [10, 10.1, 30], tie=0.05) == 1.0
    assert regret([1, 2], [10, 20]) == 0.0


def test_baselines_by_hand() -> None:
    link = affine(1e-3, 1e6)
    assert paleo(
        flops=4e9,
        moved_bytes=2e9,
        peak_flops=1e9,
        bandwidth=1e9,
        payload_bytes=1e6,
        ranks=2,
        link=link,
    ) == pytest.approx(2 + 1 + 1)
    found = alpha_beta(image_s=0.1, batch=10, payload_bytes=1e6, ranks=2, link=link)
    assert found == pytest.approx(0.5 + 1e-3 + 1)
    runs = [(b, n, 0.5 + 0.1 * b / n + 0.05 * n) for b in (10, 20, 40) for n in (1, 2, 4)]
    assert ernest_s(ernest(runs), 100, 2) == pytest.approx(0.5 + 5 + 0.1)
