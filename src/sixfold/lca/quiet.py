"""When time steps have done their part, so that `sixfold.lca.polish` may do the rest.

A support is *quiet* when next to no entry has come, gone or changed sign since the last reading.
An element whose certificate falls so fast that it will soon hold is left alone: so many steps cost
less than a solution. After a polish that did not lead to the certificate the element is left to
its steps until it has had half as many again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sixfold.lca.lane import Lane

if TYPE_CHECKING:
    from sixfold.lca.tiles import Tiles

CHANGES = 1000
"""One change among so many active entries still counts as quiet. MNIST 784 -> 1568, lambda 0.1,
reached so with 1 to 3 entries of 710 wrong, after 260 to 320 steps: 1 to 4 systems to solve."""

SOON = 10  # readings within which the certificate must be expected to hold


class QuietSupport:
    """Watches the supports of the elements in a lane, whose certificate has this tolerance."""

    def __init__(self, lane: Lane, tolerance: float, tiles: Tiles | None) -> None:
        self._lane, self._tolerance, self._tiles = lane, tolerance, tiles
        width = len(lane.code)
        self._signs = torch.zeros_like(lane.code)
        self._before = torch.full((width,), torch.inf, dtype=torch.float64)
        self._wait, self._readings = [0] * width, [0] * width

    def begin(self, slot: int) -> None:
        """Forget what was in a slot."""
        self._signs[slot] = 0
        self._before[slot] = torch.inf
        self._wait[slot] = self._readings[slot] = 0

    def failed(self, slot: int) -> None:
        """A polish did not do: leave the element to its steps for a while."""
        self._wait[slot] = max(2, self._readings[slot] // 2)

    def look(self, certificate: Tensor, moving: Tensor) -> list[int]:
        """Slots to polish, of those `moving` (W,); called once a reading, with its certificate."""
        signs = self._lane.code.sign()
        sums = torch.stack(
            [(signs != self._signs).flatten(1).sum(1), (signs != 0).flatten(1).sum(1)]
        )
        if self._tiles is not None:
            sums, _ = self._tiles.combine(sums, certificate[None])
        self._signs = signs
        quiet = (sums[0] * CHANGES <= sums[1]) & (sums[1] > 0)
        quiet &= moving & certificate.isfinite()
        fall = certificate / self._before
        soon = certificate * fall**SOON <= self._tolerance
        self._before = certificate.clone()
        self._readings = [count + 1 for count in self._readings]
        self._wait = [max(count - 1, 0) for count in self._wait]
        ready = (quiet & ~soon).nonzero().flatten().tolist()
        return [slot for slot in ready if not self._wait[slot]]
