"""Engines that live for the whole test run, by the names that the suite is parametrised with."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from sixfold.distributed.engines import Engine, open_engine

OpenEngine = Callable[[str], Engine]


@pytest.fixture(scope="session")
def engine_named() -> Iterator[OpenEngine]:
    """Opens `inline` or `local` when it is first asked for, and closes it at the end."""
    opened: dict[str, Engine] = {}
    with contextlib.ExitStack() as stack:

        def named(name: str) -> Engine:
            if name not in opened:
                preload = ("sixfold.training.worker", "sixfold.prediction.worker")
                opened[name] = stack.enter_context(
                    contextlib.closing(open_engine(name, preload=preload))
                )
            return opened[name]

        yield named
