"""What was measured of a step in two stages."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cost import Cost


@dataclass(frozen=True, kw_only=True)
class Serial:
    """Forward and backward of all shards in one process on one thread.

    Attributes:
        forward_s: all shards forward.
        backward_s: then all backward.
        gradient: (P,) their sum.
        right: whether it has the bits of the step that training makes.
    """

    forward_s: float
    backward_s: float
    gradient: Array
    right: bool


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """A way to keep activations.

    Attributes:
        way: its name.
        times_s: both stages, of every timed run.
        forward: cost of the forward stage in the median run.
        backward: cost of the backward stage.
        kernel_s: time inside the network's kernels, over all tasks.
        store_s: time of encoding, keeping, fetching and decoding, over all tasks.
        kept_bytes: activations.
        chunks: in how many parts the step was made.
        right: whether the gradient had the bits of the serial one, every time.
    """

    way: str
    times_s: list[float]
    forward: Cost
    backward: Cost
    kernel_s: float
    store_s: float
    kept_bytes: int
    chunks: int
    right: bool

    @property
    def forward_s(self) -> float:
        """Wall time of the forward stage."""
        return self.forward.wall_s

    @property
    def backward_s(self) -> float:
        """Wall time of the backward stage."""
        return self.backward.wall_s

    @property
    def total_s(self) -> float:
        """Wall time of both."""
        return self.forward_s + self.backward_s

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"total_s": self.total_s}
