"""A strategy that is no part of Sixfold: `--strategy tests.extensions.sign_sgd:SPEC`.

Bernstein et al., "signSGD: compressed optimisation for non-convex problems", ICML 2018: every
weight moves by the same length, against the sign of the sum of the gradients. Departure: gradients
are added in full, so that the result does not depend on the number of workers.
"""

from __future__ import annotations

from torch import Tensor

from sixfold.data import DataSet
from sixfold.distributed.process_group import Communicator
from sixfold.training.config import TrainConfig
from sixfold.training.strategies.spec import BIT_FOR_BIT, StrategySpec
from sixfold.training.strategies.sync.strategy import Sync, assemble_sync


class SignUpdate:
    """An update rule that is given the sign of the gradient."""

    def __init__(self, rule: object) -> None:
        self.rule = rule

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """Move the weights in place."""
        self.rule.update(weights, gradient.sign(), lr)  # type: ignore[attr-defined]


def build(comm: Communicator, config: TrainConfig, data: DataSet) -> Sync:
    """`sync`, with another update."""
    strategy = assemble_sync(comm, config, data)
    strategy.optimizer = SignUpdate(strategy.optimizer)  # type: ignore[assignment]
    return strategy


def problems(config: TrainConfig) -> list[str]:
    """A step as long as usual would be far too long."""
    lr = config.optimizer.lr
    return [f"--lr {lr}: sign_sgd moves every weight by it, give at most 0.01"] if lr > 0.01 else []


SPEC = StrategySpec(
    name="sign_sgd",
    build=build,
    equality=BIT_FOR_BIT,
    what="data parallel; weights move by the sign of the gradient",
    guarantee="equal to its own serial training bit for bit",
    sends="as sync",
    use="to show how a strategy is added",
    lost_rank="as sync",
    problems=problems,
)
