"""Which cases of a test run in `make test`, and which only in `make test-full`."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], *chosen: Any) -> list[Any]:
    """All cases of a parametrized test, of which only the chosen ones run in `make test`."""
    found = list(cases)
    missing = [case for case in chosen if case not in found]
    assert not missing, f"no such cases: {missing}"
    return [
        case if case in chosen else pytest.param(case, marks=pytest.mark.full) for case in found
    ]


def some(cases: Iterable[Any], each: int, *, rows: bool = False) -> list[Any]:
    """All cases of a parametrized test, of which only every so many-th runs in `make test`.

    `rows` says that a case is a row of several parameters.
    """
    full = pytest.mark.full
    return [
        case if index % each == 0 else pytest.param(*(case if rows else (case,)), marks=full)
        for index, case in enumerate(cases)
    ]


def quick_pairs(first: Iterable[Any], second: Iterable[Any], *chosen: tuple[Any, Any]) -> list[Any]:
    """All pairs of two parameters, of which only the chosen ones run in `make test`."""
    found = list(itertools.product(first, second))
    missing = [pair for pair in chosen if pair not in found]
    assert not missing, f"no such pairs: {missing}"
    return [
        pair if pair in chosen else pytest.param(*pair, marks=pytest.mark.full) for pair in found
    ]
