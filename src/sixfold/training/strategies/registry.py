"""The ways to divide the work: one `StrategySpec` each, of this package or the user's own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError
from sixfold.training.config import AUTO, TrainConfig
from sixfold.training.strategies.hogwild.spec import SPEC as HOGWILD
from sixfold.training.strategies.local_sgd.spec import SPEC as LOCAL_SGD
from sixfold.training.strategies.model_parallel.spec import SPEC as MODEL_PARALLEL
from sixfold.training.strategies.param_server.spec import SPEC as PARAM_SERVER
from sixfold.training.strategies.spec import (
    CONTINUE,
    REPLACE,
    RESTART,
    StrategySpec,
    misplaced_options,
)
from sixfold.training.strategies.sync.spec import SPEC as SYNC

if TYPE_CHECKING:
    from sixfold.data import DataSet
    from sixfold.distributed.process_group import Communicator
    from sixfold.training.strategies.strategy import Strategy

STRATEGIES: dict[str, StrategySpec] = {
    spec.name: spec for spec in (SYNC, LOCAL_SGD, HOGWILD, PARAM_SERVER, MODEL_PARALLEL)
}
"""Name to spec, in the order in which `sixfold strategies` lists them."""

LEGEND = (
    "Bytes are those that one rank sends. P: size of all weights and float buffers; n: ranks; "
    "docs/strategies.md has a section on each."
)


def find_strategy(name: str) -> StrategySpec:
    """The strategy of a name, or the user's own, `package.module:SPEC`; a `UserError` if none."""
    if ":" in name:
        from sixfold.models.importing import find_object

        found = find_object(name, "--strategy")
        if not isinstance(found, StrategySpec):
            raise UserError(
                f"--strategy {name} is a {type(found).__name__}: name a "
                "sixfold.training.strategies.spec.StrategySpec"
            )
        return found
    if name not in STRATEGIES:
        raise UserError(unknown("strategy", name, (*STRATEGIES, AUTO)))
    return STRATEGIES[name]


def strategy_problems(config: TrainConfig) -> list[str]:
    """What is wrong with the choice of a strategy and with its settings, one line each."""
    name = config.strategy.strategy
    chosen = None
    if name != AUTO:
        try:
            chosen = find_strategy(name)
        except UserError as error:
            return list(error.problems)
    found = [] if chosen is None else chosen.problems(config)
    engine = config.engine
    goes_on = chosen is None or chosen.on_loss == CONTINUE
    if engine.min_workers is not None and chosen is not None and not goes_on:
        found.append(
            f"--workers {engine.min_workers}:{engine.workers}: --strategy {chosen.name} needs all "
            f"its ranks; give --workers {engine.workers}"
        )
    for spec in STRATEGIES.values():
        if chosen is None or spec.name != chosen.name:
            found += misplaced_options(spec, config)
    return found


def on_loss(config: TrainConfig) -> str:
    """What the others do when a rank is lost: that of the strategy where the settings allow it."""
    found = find_strategy(config.strategy.strategy).on_loss
    goes_by_checkpoints = config.optimizer.unfreeze or config.local_sgd.compare_serial
    nobody_comes = found == REPLACE and config.engine.max_restarts == 0
    return RESTART if goes_by_checkpoints or nobody_comes else found


def least_ranks(config: TrainConfig, workers: int) -> int | None:
    """With how many ranks the others go on when some are lost; None if all start again."""
    return {CONTINUE: config.engine.min_workers or 1, REPLACE: workers}.get(on_loss(config))


def keeps_mirrors(config: TrainConfig) -> bool:
    """Whether `model_parallel` keeps copies of parts, of which no other group has one."""
    divided = dataclasses.replace(config.strategy, strategy="model_parallel")
    return on_loss(dataclasses.replace(config, strategy=divided)) == REPLACE


def build_strategy(comm: Communicator, config: TrainConfig, data: DataSet) -> Strategy:
    """Build the network and what trains it, on one rank; a `UserError` if the data do not fit."""
    return find_strategy(config.strategy.strategy).build(comm, config, data)
