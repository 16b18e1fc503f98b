"""What was measured of a step in two stages."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.cost import Cost


@dataclass(frozen=True, kw_only=True)
class Serial:
    """Forward and backward of all shards in one process on one thread."""

    forward_s: float  # all shards forward
    backward_s: float  # then all backward
    gradient: Array  # (P,) their sum
    right: bool  # whether it has the bits of the step that training makes


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """A way to keep activations."""

    way: str
    times_s: list[float]  # both stages, of every timed run
    forward: Cost  # cost of the forward stage in the median run
    backward: Cost  # cost of the backward stage
    kernel_s: float  # time inside the network's kernels, over all tasks
    store_s: float  # time of encoding, keeping, fetching and decoding, over all tasks
    kept_bytes: int  # activations
    chunks: int  # in how many parts the step was made
    right: bool  # whether the gradient had the bits of the serial one, every time

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
