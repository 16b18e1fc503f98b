"""The functions of the Python API that need more than one package."""

from __future__ import annotations

from typing import Any

from sixfold.core.events import OnEvent
from sixfold.distributed.engines import Engine
from sixfold.training import run
from sixfold.training.config import TrainConfig, is_automatic


def train(
    config: TrainConfig | None = None,
    *,
    engine: Engine | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Train a network and return the figures that `result.json` holds.

    Args:
        config: the settings; without any, LeNet-5 learns the embedded digits.
        engine: an open engine to be used and left open; one is opened for the run if absent.
        on_event: called with progress.

    Raises:
        UserError: if the settings, the data or the cluster do not fit; nothing is left behind.
        RunError: if the run failed; its directory keeps the last checkpoint.

    >>> from sixfold import configure
    >>> train(configure(workers=0))
    Traceback (most recent call last):
    sixfold.core.errors.UserError: --workers 0: must be at least 1
    """
    planner: run.Planner | None = None
    if config is not None and is_automatic(config):
        from sixfold.perf.plan.automatic import choose

        planner = choose
    return run.train(config, engine=engine, on_event=on_event, planner=planner)
