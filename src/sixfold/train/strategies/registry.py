"""From the name of a strategy to one that is ready for its first step."""

from __future__ import annotations

from collections.abc import Callable

from sixfold.data import DataSet
from sixfold.distributed.process_group import Communicator
from sixfold.train.config import TrainConfig
from sixfold.train.strategies.hogwild.strategy import build_hogwild
from sixfold.train.strategies.local_sgd.strategy import build_local_sgd
from sixfold.train.strategies.model_parallel.strategy import build_model_parallel
from sixfold.train.strategies.strategy import Strategy
from sixfold.train.strategies.sync.strategy import build_sync


def build_strategy(comm: Communicator, config: TrainConfig, data: DataSet) -> Strategy:
    """Build the network and what trains it, on one rank.

    Args:
        comm: the process group.
        config: the settings, checked.
        data: the data set that they name.

    Raises:
        UserError: if the network or the division does not fit the data.
    """
    openers: dict[str, Callable[[Communicator, TrainConfig, DataSet], Strategy]] = {
        "sync": build_sync,
        "local_sgd": build_local_sgd,
        "hogwild": build_hogwild,
        "model_parallel": build_model_parallel,
    }
    return openers[config.strategy.strategy](comm, config, data)
