"""Codes to begin with: the one of the frame before, or of the same image an epoch ago.

Codes are kept sparse, and every rank keeps all of them, so that it does not matter who computes
an element next, and a checkpoint of one rank holds everything.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sixfold.distributed.collectives import all_gather_int
from sixfold.distributed.process_group import Communicator
from sixfold.lca.order import Order

Sparse = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Places of entries that are not zero, and their values."""


class WarmStarts:
    """Codes (K, P, Q) by image (kind `epoch`) or by element (`frame`); `none` keeps none."""

    def __init__(self, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.kind, self.shape, self._dtype = kind, shape, dtype
        self._codes: dict[int, Sparse] = {}

    def get(self, order: Order, step: int, element: int, image: int) -> Tensor | None:
        """The code with which an element begins at an update; None for none."""
        key = image if self.kind == "epoch" else element
        if key not in self._codes or (self.kind == "frame" and not order.follows(step, element)):
            return None
        places, values = self._codes[key]
        code = torch.zeros(math.prod(self.shape), dtype=self._dtype)
        code[torch.from_numpy(places)] = torch.from_numpy(values).to(self._dtype)
        return code.view(self.shape)

    def share(
        self, comm: Communicator, elements: list[int], chosen: list[int], codes: Tensor
    ) -> None:
        """Keep the codes of all ranks; every rank gives its own and gets all the others'.

        Args:
            comm: the process group.
            elements: whose codes this rank has.
            chosen: the image of each element of the batch.
            codes: (n, K, P, Q), of `elements`.
        """
        if self.kind == "none":
            return
        keys = [chosen[element] for element in elements] if self.kind == "epoch" else elements
        packed = _pack(keys, codes)
        lengths = all_gather_int(comm, len(packed))
        others = [rank for rank in range(comm.size) if rank != comm.rank]
        received = {rank: np.empty(lengths[rank], np.float64) for rank in others}
        comm.exchange(dict.fromkeys(others, packed), received)
        for rank in range(comm.size):
            self._unpack(packed if rank == comm.rank else received[rank])

    def _unpack(self, packed: NDArray[np.float64]) -> None:
        at = 0
        while at < len(packed):
            key, count = int(packed[at]), int(packed[at + 1])
            places = packed[at + 2 : at + 2 + count].astype(np.int64)
            values = packed[at + 2 + count : at + 2 + 2 * count].copy()
            self._codes[key] = places, values
            at += 2 + 2 * count

    def state(self) -> Tensor:
        """All codes as one vector, for a checkpoint."""
        parts = [np.zeros(0)]
        for key, (places, values) in sorted(self._codes.items()):
            parts += [np.array([key, len(places)], np.float64), places.astype(np.float64), values]
        return torch.from_numpy(np.concatenate(parts))

    def load_state(self, state: Tensor) -> None:
        """Take what `state` gave."""
        self._codes.clear()
        self._unpack(state.numpy())


def _pack(keys: list[int], codes: Tensor) -> NDArray[np.float64]:
    """Key, number of entries, places and values of each code, one after the other."""
    parts = []
    for key, code in zip(keys, codes, strict=True):
        flat = code.reshape(-1).double().numpy()
        places = np.flatnonzero(flat)
        parts += [[key, len(places)], places, flat[places]]
    return np.concatenate([np.zeros(0), *parts])
