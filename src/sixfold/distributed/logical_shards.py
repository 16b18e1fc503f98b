"""Logical shards: how a mini-batch is cut, who owns which piece, and in which order sums are made.

A mini-batch of n samples is cut into L shards, L a power of two that follows from n alone. The
gradients of the shards are added in one fixed binary tree over the shard numbers:

    level 2              (2,0)
    level 1       (1,0)         (1,1)
    level 0    (0,0) (0,1)   (0,2) (0,3)      one leaf a shard

A rank owns a contiguous run of shards and folds the nodes of the tree that lie whole in its run.
What remains are at most 2 log2 L nodes, the *cover* of the run; the ranks' covers together are
folded in the same tree. No sum is ever made in another order, so the total has the same bits
however the shards are spread over ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

LARGEST_COUNT = 256
SMALLEST_SHARD = 16
SMALLEST_SHARD_BATCH_NORM = 32


class Node(NamedTuple):
    """A node of the tree over L shards: level 0 is a shard, the root has level log2 L.

    It covers the shards from ``place << level`` up to ``(place + 1) << level``, the last excluded.
    """

    level: int
    place: int


def is_power_of_two(value: int) -> bool:
    """True for 1, 2, 4, 8, ...

    >>> [value for value in range(9) if is_power_of_two(value)]
    [1, 2, 4, 8]
    """
    return value > 0 and value & (value - 1) == 0


def shard_count(samples: int, *, batch_norm: bool = False, wanted: int | None = None) -> int:
    """L >= 1, how many logical shards a step of so many samples has. Never depends on the workers.

    The largest power of two up to 256 that leaves every shard at least 16 samples (32 for a network
    with batch-norm, whose statistics need them), but at least 4 from 16 samples on and 2 from 2
    samples on (with batch-norm from 4 on: one sample may have no statistics). A power of two that
    the user `wanted` is used as far as the samples reach.

    >>> [shard_count(n) for n in (1, 7, 10, 16, 100, 500, 1000, 2000, 10_000)]
    [1, 2, 2, 4, 4, 16, 32, 64, 256]
    >>> shard_count(1000, batch_norm=True)
    16
    """
    if samples < 1:
        raise ValueError(f"a step needs at least 1 sample, not {samples}")
    if wanted is not None:
        return min(wanted, 1 << (samples.bit_length() - 1))
    smallest = SMALLEST_SHARD_BATCH_NORM if batch_norm else SMALLEST_SHARD
    by_size = max(samples // smallest, 1)
    count = min(LARGEST_COUNT, 1 << (by_size.bit_length() - 1))
    floor = 4 if samples >= 16 else 2 if samples >= (4 if batch_norm else 2) else 1
    return max(count, floor)


def shard_bounds(samples: int, count: int, shard: int) -> tuple[int, int]:
    """First and one-past-last sample of a shard; sizes differ by at most one.

    >>> [shard_bounds(10, 4, shard) for shard in range(4)]
    [(0, 2), (2, 5), (5, 7), (7, 10)]
    """
    return shard * samples // count, (shard + 1) * samples // count


def owned_shards(count: int, size: int, rank: int) -> range:
    """The contiguous run of shards that a rank owns; ranks beyond `count` own none.

    >>> [list(owned_shards(4, 3, rank)) for rank in range(3)]
    [[0], [1], [2, 3]]
    >>> list(owned_shards(2, 3, 2))
    []
    """
    active = min(count, size)
    if rank >= active:
        return range(0)
    return range(rank * count // active, (rank + 1) * count // active)


def cover(run: range) -> list[Node]:
    """The fewest nodes of the tree that make up a run of shards, from left to right.

    >>> cover(range(3, 8))
    [Node(level=0, place=3), Node(level=2, place=1)]
    """
    nodes = []
    start, stop = run.start, run.stop
    while start < stop:
        level = 0
        while start % (2 << level) == 0 and start + (2 << level) <= stop:
            level += 1
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return nodes


Value = TypeVar("Value")


@dataclass
class TreeFold(Generic[Value]):
    """Adds values in the fixed tree as they come, holding at most log2 L + 1 of them.

    >>> fold = TreeFold(lambda left, right: f"({left}{right})")
    >>> for shard, value in zip(range(4, 8), "efgh"):
    ...     fold.push(Node(0, shard), value)
    >>> fold.nodes
    [(Node(level=2, place=1), '((ef)(gh))')]
    """

    # adds its second argument to its first and returns the sum (it may reuse the first)
    add: Callable[[Value, Value], Value]

    def __post_init__(self) -> None:
        self.nodes: list[tuple[Node, Value]] = []

    def push(self, node: Node, value: Value) -> None:
        """Take the value of the next node to the right; siblings are added at once."""
        level, place = node
        while place % 2 == 1 and self.nodes and self.nodes[-1][0] == (level, place - 1):
            value = self.add(self.nodes.pop()[1], value)
            level, place = level + 1, place // 2
        self.nodes.append((Node(level, place), value))

    def root(self, count: int) -> Value:
        """The sum over all `count` shards; an internal error if some are missing."""
        whole = Node(count.bit_length() - 1, 0)
        assert [node for node, _ in self.nodes] == [whole], (self.nodes, count)
        return self.nodes[0][1]
