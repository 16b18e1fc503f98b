"""Which cases of a test run in `make test`, and which only in `make test-full`."""

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
