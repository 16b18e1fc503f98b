"""Groups of workers: who merges with whom, and the exchanges within a group.

Workers are divided into groups of neighbours. A group has weights of its own: its members begin
every round with them and merge among themselves. A *swap* hands one member of each group on to the
next group, in a ring: the member takes along its weights and its images. The first swap moves the
first member of every group, the second swap the second, and so on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sixfold.world import World

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


def scatter_slices(world: World, members: list[int], vector: Tensor) -> Tensor:
    """Every member's piece of one slice: member j gets slice j.

    Args:
        world: the gang; all of `members` must call this.
        members: ranks of the group, this one among them.
        vector: (T,), this rank's.

    Returns:
        (n, t): row k is member k's piece of this rank's slice.
    """
    places = cuts(len(vector), len(members))
    own, me = vector.contiguous().numpy(), members.index(world.rank)
    width = places[me + 1] - places[me]
    rows = np.empty((len(members), width), own.dtype)
    rows[me] = own[places[me] : places[me + 1]]
    others = [(place, rank) for place, rank in enumerate(members) if rank != world.rank]
    world.exchange(
        {rank: own[places[place] : places[place + 1]] for place, rank in others},
        {rank: rows[place] for place, rank in others},
    )
    return torch.from_numpy(rows)


def gather_slices(world: World, members: list[int], piece: Tensor, length: int) -> Tensor:
    """The whole vector from its slices: the opposite of `scatter_slices`.

    Args:
        world: the gang.
        members: ranks of the group.
        piece: (t,), this rank's slice.
        length: T, of the whole.
    """
    places = cuts(length, len(members))
    own = piece.contiguous().numpy()
    whole = np.empty(length, own.dtype)
    others = [(place, rank) for place, rank in enumerate(members) if rank != world.rank]
    me = members.index(world.rank)
    whole[places[me] : places[me + 1]] = own
    world.exchange(
        {rank: own for _, rank in others},
        {rank: whole[places[place] : places[place + 1]] for place, rank in others},
    )
    return torch.from_numpy(whole)


def gather_whole(world: World, members: list[int], vector: Tensor) -> list[Tensor]:
    """Every member's whole vector, by member."""
    own = vector.contiguous().numpy()
    rows = {rank: np.empty_like(own) for rank in members if rank != world.rank}
    world.exchange(dict.fromkeys(rows, own), rows)
    return [torch.from_numpy(own if rank == world.rank else rows[rank]) for rank in members]


def mean_over(world: World, members: list[int], vector: Tensor) -> Tensor:
    """The plain mean of the members' vectors, the same bits on all of them."""
    if len(members) == 1:
        return vector.clone()
    rows = scatter_slices(world, members, vector).double()
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return gather_slices(world, members, (total / len(members)).to(vector.dtype), len(vector))
