"""Everything that a worker's training consists of, as one vector and a few counters.

The vector is [parameters | float buffers | each of the optimizer's state vectors]: what a merge
brings together, what moves between groups, and what a checkpoint keeps of every group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A worker's training at one moment."""

    vector: Tensor  # (T,), see above
    counters: Tensor  # (K,) int64, the network's integer buffers
    updates: int  # how many updates the optimizer has made


class WorkerStateAccess:
    """Reads and writes the body of a network and its optimizer.

    Attributes:
        weights: P, number of trainable parameters, padding included.
        network: P + Q, those and the float buffers.
        length: T, of the whole vector.
    """

    def __init__(self, state: FlatState, optimizer: Optimizer) -> None:
        self.state, self.optimizer = state, optimizer
        self.weights = len(state.parameters)
        self.network = self.weights + len(state.buffers)
        self.length = self.network + self.weights * len(optimizer.slots)

    def read(self) -> WorkerState:
        """A copy."""
        slots = [self.optimizer.slots[name] for name in sorted(self.optimizer.slots)]
        return WorkerState(
            vector=torch.cat([self.state.parameters, self.state.buffers, *slots]),
            counters=self.state.counters(),
            updates=self.optimizer.updates,
        )

    def write(self, body: WorkerState) -> None:
        """Go on from another moment."""
        self.write_network(body.vector[: self.network])
        places = range(self.network, self.length, self.weights)
        for name, start in zip(sorted(self.optimizer.slots), places, strict=True):
            self.optimizer.slots[name].copy_(body.vector[start : start + self.weights])
        self.state.set_counters(body.counters)
        self.optimizer.updates = body.updates

    def write_network(self, network: Tensor) -> None:
        """Put parameters and float buffers in place, (P + Q,), and leave the rest as it is."""
        self.state.parameters.copy_(network[: self.weights])
        self.state.buffers.copy_(network[self.weights : self.network])

    def named(self, weights: Tensor) -> list[tuple[str, Tensor]]:
        """The first P elements of a vector as parameters by name."""
        return self.state.named_views(weights[: self.weights])
