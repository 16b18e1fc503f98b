"""From the name of a strategy to one that is ready for its first step."""

from __future__ import annotations

from collections.abc import Callable

from sixfold.data import DataSet
from sixfold.distributed.process_group import World
from sixfold.train.config import TrainConfig
from sixfold.train.strategies.hogwild.strategy import open_hogwild
from sixfold.train.strategies.local_sgd.strategy import open_local_sgd
from sixfold.train.strategies.model_parallel.strategy import open_model_parallel
from sixfold.train.strategies.strategy import Strategy
from sixfold.train.strategies.sync.strategy import open_sync


def open_strategy(world: World, config: TrainConfig, data: DataSet) -> Strategy:
    """Build the network and what trains it, on one rank.

    Args:
        world: the gang.
        config: the settings, checked.
        data: the data set that they name.

    Raises:
        UserError: if the network or the division does not fit the data.
    """
    openers: dict[str, Callable[[World, TrainConfig, DataSet], Strategy]] = {
        "sync": open_sync,
        "local_sgd": open_local_sgd,
        "hogwild": open_hogwild,
        "model_parallel": open_model_parallel,
    }
    return openers[config.strategy.strategy](world, config, data)
