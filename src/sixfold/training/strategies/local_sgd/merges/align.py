"""Alignment: numbering a worker's feature maps so that they match the base's as well as they can.

Two networks that have learned the same maps in another order compute the same and have a
meaningless mean. For every axis (`sixfold.training.strategies.local_sgd.merges.channels`), layer by
layer, the permutation p is found that makes the sum over maps i of <base map i, worker map p(i)>
largest, where a map is everything that follows its number: its incoming weights and its outgoing
ones, those already in the order of the other axes. This is a linear assignment, solved exactly by
the Hungarian method (Kuhn 1955, in Jonker and Volgenant's form, scipy). Sweeps over the layers are
repeated until no permutation changes; the sum never falls, so they end.

Ainsworth, Hayase and Srinivasa, "Git re-basin: merging models modulo permutation symmetries", 2023
(weight matching). Departures: layers are visited in the network's order and not in a random one,
and of equally good permutations the one that moves least is taken.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sixfold.training.strategies.local_sgd.merges.channels import Axis, Member

Tensors = Mapping[str, Tensor]
Permutation = NDArray[np.int64]
MOST_SWEEPS = 100  # the sum grows with every sweep, so this is never reached but by rounding
TIE = 1e-9  # what staying in place is worth, relative to the largest match


def align(base: Tensors, worker: Tensors, axes: tuple[Axis, ...]) -> list[Permutation]:
    """For every axis p, (size,): place i takes the worker's map p[i], to match the base best.

    `base` and `worker` are parameters by name; `axes` may change, in the order of the layers.
    """
    orders = [np.arange(axis.size) for axis in axes]
    for _ in range(MOST_SWEEPS):
        changed = False
        for number in range(len(axes)):
            scores = _scores(base, worker, axes, orders, number)
            found = assign(scores)
            if _worth(scores, found) > _worth(scores, orders[number]):
                orders[number], changed = found, True
        if not changed:
            break
    return orders


def assign(scores: NDArray[np.float64]) -> Permutation:
    """The permutation with the largest sum of scores[i, p[i]]; of equals one that stays.

    >>> assign(np.array([[0.0, 2.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    stay = TIE * max(float(np.abs(scores).max()), np.finfo(np.float64).tiny) * np.eye(len(scores))
    permutation: Permutation = linear_sum_assignment(scores + stay, maximize=True)[1]
    return permutation.astype(np.int64)


def _worth(scores: NDArray[np.float64], order: Permutation) -> float:
    staying = TIE * float(np.abs(scores).max()) * float((order == np.arange(len(order))).sum())
    return float(scores[np.arange(len(order)), order].sum()) + staying


def _scores(
    base: Tensors, worker: Tensors, axes: tuple[Axis, ...], orders: list[Permutation], number: int
) -> NDArray[np.float64]:
    """How well each of the worker's maps would do in each place of an axis, (size, size)."""
    axis = axes[number]
    scores = np.zeros((axis.size, axis.size))
    others = [(a, o) for k, (a, o) in enumerate(zip(axes, orders, strict=True)) if k != number]
    for member in axis.members:
        if member.tensor not in base:
            continue  # a buffer: it follows, but has no say
        left = _maps(base[member.tensor], axis, member)
        arranged = worker[member.tensor]
        for other, order in others:
            for companion in other.members:
                if companion.tensor == member.tensor:
                    arranged = rearrange(arranged, other, companion, order)
        scores += left @ _maps(arranged, axis, member).T
    return scores


def _maps(tensor: Tensor, axis: Axis, member: Member) -> NDArray[np.float64]:
    """A member as one row a map, (size, rest)."""
    part = tensor.detach().double().movedim(member.dim, 0)
    part = part[member.start : member.start + axis.size * member.block]
    rows: NDArray[np.float64] = part.reshape(axis.size, -1).numpy()
    return rows


def rearrange(tensor: Tensor, axis: Axis, member: Member, order: Permutation) -> Tensor:
    """A tensor with the dim of `member` in another order: place i takes what was at order[i]."""
    places = np.arange(tensor.shape[member.dim])
    run = places[member.start : member.start + axis.size * member.block]
    places[member.start : member.start + axis.size * member.block] = run.reshape(
        axis.size, member.block
    )[order].reshape(-1)
    index: Any = [slice(None)] * tensor.dim()
    index[member.dim] = places
    return tensor[tuple(index)]


def apply(tensors: Tensors, axes: tuple[Axis, ...], orders: list[Permutation]) -> dict[str, Tensor]:
    """All tensors of a network, buffers too, under another numbering of its maps.

    Tensors that follow no axis, and names that are not among `tensors`, are passed over.
    """
    found = dict(tensors)
    for axis, order in zip(axes, orders, strict=True):
        for member in axis.members:
            if member.tensor in found:
                found[member.tensor] = rearrange(found[member.tensor], axis, member, order)
    return found


def moved(axes: tuple[Axis, ...], orders: list[Permutation]) -> dict[str, int]:
    """Layer -> how many of its maps were found in another place."""
    return {
        axis.layer: int((order != np.arange(axis.size)).sum())
        for axis, order in zip(axes, orders, strict=True)
    }
