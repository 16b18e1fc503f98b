"""Groups of workers: who merges with whom, and the exchanges within a group.

Workers are divided into groups of neighbours. A group has weights of its own: its members begin
every round with them and merge among themselves. A *swap* hands one member of each group on to the
next group, in a ring: the member takes along its weights and its images. The first swap moves the
first member of every group, the second swap the second, and so on.
"""

import numpy as np
import torch
from torch import Tensor

from sixfold.distributed.process_group import Communicator

Groups = list[list[int]]


def groups_after(size: int, count: int, swaps: int) -> Groups:
    """The members of each group, as ranks, after so many swaps.

    >>> groups_after(6, 2, 0), groups_after(6, 2, 1), groups_after(6, 2, 2)
    ([[0, 1, 2], [3, 4, 5]], [[3, 1, 2], [0, 4, 5]], [[3, 4, 2], [0, 1, 5]])
    """
    groups = [
        list(range(number * size // count, (number + 1) * size // count)) for number in range(count)
    ]
    smallest = min(len(group) for group in groups)
    for swap in range(swaps):
        place = swap % smallest
        moving = [group[place] for group in groups]
        for number, group in enumerate(groups):
            group[place] = moving[number - 1]
    return groups


def cuts(length: int, parts: int) -> list[int]:
    """Where a vector is cut into slices, one for each member: `parts` + 1 places."""
    return [part * length // parts for part in range(parts + 1)]


def scatter_slices(group: Communicator, vector: Tensor) -> Tensor:
    """Every member's piece of one slice, (n, t): row k is rank k's piece of this rank's slice.

    All of the group must call this, each with its own vector (T,).
    """
    places, own = cuts(len(vector), group.size), vector.contiguous().numpy()
    width = places[group.rank + 1] - places[group.rank]
    rows = np.empty((group.size, width), own.dtype)
    rows[group.rank] = own[places[group.rank] : places[group.rank + 1]]
    others = [rank for rank in range(group.size) if rank != group.rank]
    group.exchange(
        {rank: own[places[rank] : places[rank + 1]] for rank in others},
        {rank: rows[rank] for rank in others},
    )
    return torch.from_numpy(rows)


def gather_slices(group: Communicator, piece: Tensor, length: int) -> Tensor:
    """The whole vector (T,) from slices (t,): the opposite of `scatter_slices`; all call it."""
    places, own = cuts(length, group.size), piece.contiguous().numpy()
    whole = np.empty(length, own.dtype)
    whole[places[group.rank] : places[group.rank + 1]] = own
    others = [rank for rank in range(group.size) if rank != group.rank]
    group.exchange(
        dict.fromkeys(others, own),
        {rank: whole[places[rank] : places[rank + 1]] for rank in others},
    )
    return torch.from_numpy(whole)


def mean_over(group: Communicator, vector: Tensor) -> Tensor:
    """The plain mean of all ranks' vectors, the same bits on all of them."""
    if group.size == 1:
        return vector.clone()
    rows = scatter_slices(group, vector).double()
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return gather_slices(group, (total / group.size).to(vector.dtype), len(vector))
