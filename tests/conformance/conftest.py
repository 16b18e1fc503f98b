"""Engines that live for the whole test run, by the names that the suite is parametrised with."""

from collections.abc import Callable, Iterator

import pytest

from sixfold.distributed.engines import Engine, open_engine

OpenEngine = Callable[[str], Engine]


@pytest.fixture(scope="session")
def engine_named(local_engine: Engine) -> Iterator[OpenEngine]:
    """Tells `inline` and `local` by their names."""
    with open_engine("inline") as inline:
        yield {"inline": inline, "local": local_engine}.__getitem__
