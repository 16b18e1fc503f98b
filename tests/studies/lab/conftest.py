"""Functions of these tests travel to the process that holds the Spark session."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cloudpickle
import pytest


@pytest.fixture(autouse=True, scope="module")
def functions_travel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Test modules cannot be imported over there, so their functions are sent whole."""
    module = sys.modules[request.module.__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)
