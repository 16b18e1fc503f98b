"""Blocks of results that tasks make: how work is cut, sent, timed, added up and sampled."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, Philox

from sixfold.distributed.logical_shards import Node, TreeFold
from sixfold.studies.convolution.geometry import Array

Range = tuple[int, int]  # the first, and the one behind the last
Corner = tuple[int, ...]  # where a block begins, along every dim
Block = tuple[Corner, Array]
Partial = tuple[Node, Array]
"""A node of the tree over logical shards, and the sum of the gradients below it."""

SAMPLES = 16
"""Elements of a block that are compared with the definition where the whole is not collected."""

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""Largest error, as a part of the usual sum of the absolute values of what was added."""


class Sampled(NamedTuple):
    """What a task tells of a block that stays where it is."""

    corner: Corner
    size: int
    samples: list[tuple[Corner, float]]  # places in the whole, and the values there


def ranges(extent: int, size: int) -> list[Range]:
    """An extent cut into runs of `size`, of which the last may be shorter; 0 for one run.

    >>> ranges(10, 4), ranges(3, 0)
    ([(0, 4), (4, 8), (8, 10)], [(0, 3)])
    """
    size = size or extent
    return [(first, min(first + size, extent)) for first in range(0, extent, size)]


def even_ranges(extent: int, parts: int) -> list[Range]:
    """An extent cut into at most `parts` runs of nearly equal length.

    >>> even_ranges(10, 3), even_ranges(2, 3)
    ([(0, 3), (3, 6), (6, 10)], [(0, 1), (1, 2)])
    """
    parts = min(parts, extent)
    return list(pairwise(extent * part // parts for part in range(parts + 1)))


def place(corner: Corner) -> int:
    """A number for a corner, by which blocks are spread; the same on every host."""
    found = 0
    for index in corner:
        found = found * 31 + index
    return found


def add(total: Array, other: Array) -> Array:
    """`total += other`; both belong to the reduction, which holds no other reference to them."""
    total += other
    return total


@contextmanager
def timed(accumulator: Any) -> Iterator[None]:
    """While open, time is added to a Spark accumulator."""
    began = time.perf_counter()
    yield
    accumulator.add(time.perf_counter() - began)


def take_samples(block: Block) -> Sampled:
    """Some elements of a block, which do not depend on who computes it."""
    corner, values = block
    generator = Generator(Philox(key=[hash(corner) & (2**63 - 1), values.size]))
    samples = []
    for flat in generator.integers(0, values.size, min(SAMPLES, values.size)):
        index = np.unravel_index(flat, values.shape)
        at = tuple(first + int(k) for first, k in zip(corner, index, strict=True))
        samples.append((at, float(values[index])))
    return Sampled(corner, int(values.size), samples)


def all_there(sampled: Sequence[Sampled], size: int) -> bool:
    """Whether blocks make up a whole of so many elements, none twice."""
    corners = {block.corner for block in sampled}
    return len(corners) == len(sampled) and sum(block.size for block in sampled) == size


def folded(gradients: Iterable[tuple[int, Array]]) -> Iterator[Partial]:
    """Gradients of shards in order, added as far as the tree allows."""
    fold: TreeFold[Array] = TreeFold(add)
    for index, gradient in gradients:
        fold.push(Node(0, index), gradient)
    yield from fold.nodes


def total_of(count: int, partials: Iterable[Partial]) -> Array:
    """The sum over all shards, in the fixed tree; partial sums come in order."""
    fold: TreeFold[Array] = TreeFold(add)
    for node, value in partials:
        fold.push(Node(*node), value)
    return fold.root(count)
