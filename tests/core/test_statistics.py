import numpy as np
import pytest
from scipy import stats

from sixfold.core.statistics import Interval, difference, interval, verdict


def test_an_interval_is_student_s() -> None:
    values = [0.91, 0.93, 0.95, 0.90]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = interval(values, 100)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_a_difference_is_welch_s() -> None:
    values, reference = [0.91, 0.93, 0.95, 0.90], [0.96, 0.965, 0.97]
    test = stats.ttest_ind(values, reference, equal_var=False).confidence_interval(0.95)
    found = difference(values, reference, 100)
    assert (found.low, found.high) == pytest.approx((test.low, test.high))


def test_one_seed_has_the_interval_of_its_images() -> None:
    found = interval([0.9], 1000)
    assert found.high - found.mean == pytest.approx(1.959964 * np.sqrt(0.9 * 0.1 / 1000))
    assert interval([1.0], 1000).low == 1.0


def test_a_difference_of_two_seeds_stays_within_what_accuracies_can_differ_by() -> None:
    found = difference([0.1, 0.9], [0.9, 0.95], 1000)
    assert (found.low, found.high) == (-1.0, 1.0)
    assert verdict(found, 0.01) == "unclear"


def test_equal_values_have_no_width() -> None:
    found = difference([0.5, 0.5], [0.5, 0.5], 10)
    assert (found.low, found.mean, found.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("low", "mean", "high", "expected"),
    [
        (0.001, 0.01, 0.02, "better"),
        (-0.02, -0.01, -0.001, "below"),
        (-0.01, 0.0, 0.01, "matching"),
        (-0.012, -0.004, 0.004, "matching"),
        (-0.03, -0.004, 0.02, "unclear"),
        (-0.03, 0.004, 0.04, "unclear"),
        (-1.0, -0.45, 0.23, "unclear"),  # two seeds
    ],
)
def test_verdicts(low: float, mean: float, high: float, expected: str) -> None:
    assert verdict(Interval(mean=mean, low=low, high=high, seeds=2), 0.005) == expected
