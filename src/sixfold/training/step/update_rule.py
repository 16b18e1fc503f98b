"""What an update rule is, and rules that wrap another."""

from typing import Protocol

from torch import Tensor


class Optimizer(Protocol):
    """An update rule and its state.

    Attributes:
        slots: names of the state vectors, each (P,), to their values.
        updates: number of updates made so far.
    """

    slots: dict[str, Tensor]
    updates: int

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """Change `weights` (P,) in place; `gradient` (P,) may be overwritten."""
        ...


class WrappedRule:
    """An update rule around another, whose state it shares."""

    def __init__(self, rule: Optimizer) -> None:
        self.rule = rule
        self.slots = rule.slots

    @property
    def updates(self) -> int:
        """Number of updates made so far."""
        return self.rule.updates

    @updates.setter
    def updates(self, value: int) -> None:
        self.rule.updates = value
