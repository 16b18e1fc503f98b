"""Some of a gang's ranks as a world of their own, numbered from 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sixfold.distributed.process_group.communicator import Buffer, Link, PlainData, World


def group(world: World, ranks: Sequence[int]) -> World:
    """The world of some ranks, of which the caller is one.

    What its exchanges cost is counted in the traffic of `world`.

    Args:
        world: the gang.
        ranks: numbers in `world`, in the order in which the group numbers them.

    Raises:
        ValueError: if the caller is not among them.

    >>> from sixfold.distributed.process_group import alone
    >>> group(alone(), [0]).size
    1
    """
    if world.rank not in ranks:
        raise ValueError(f"rank {world.rank} is not one of {list(ranks)}")
    return dataclasses.replace(
        world,
        rank=list(ranks).index(world.rank),
        size=len(ranks),
        link=_Renumbered(world.link, tuple(ranks)),
    )


class _Renumbered:
    """A link whose peers have other numbers in the gang."""

    def __init__(self, link: Link, ranks: tuple[int, ...]) -> None:
        self._link, self._ranks = link, ranks

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """As the gang's link, with its numbers."""
        ranks = self._ranks
        return self._link.exchange(
            {ranks[peer]: array for peer, array in sends.items()},
            {ranks[peer]: array for peer, array in receives.items()},
        )

    def report(self, event: PlainData) -> None:
        """As the gang's link."""
        self._link.report(event)

    def should_stop(self) -> bool:
        """As the gang's link."""
        return self._link.should_stop()
