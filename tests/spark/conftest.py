"""Functions of these tests travel to the process that holds the Spark session."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cloudpickle
import pytest
from tests.spark import tables


@pytest.fixture(autouse=True, scope="module")
def functions_travel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Test modules cannot be imported over there, so their functions are sent whole."""
    modules = (sys.modules[request.module.__name__], tables)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)
