"""Some of a process group's ranks as a world of their own, numbered from 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sixfold.distributed.process_group.communicator import (
    Buffer,
    Communicator,
    PlainData,
    Transport,
)


def group(comm: Communicator, ranks: Sequence[int]) -> Communicator:
    """The world of some ranks, of which the caller is one.

    What its exchanges cost is counted in the traffic of `comm`.

    Args:
        comm: the process group.
        ranks: numbers in `comm`, in the order in which the group numbers them.

    Raises:
        ValueError: if the caller is not among them.

    >>> from sixfold.distributed.process_group import alone
    >>> group(alone(), [0]).size
    1
    """
    if comm.rank not in ranks:
        raise ValueError(f"rank {comm.rank} is not one of {list(ranks)}")
    return dataclasses.replace(
        comm,
        rank=list(ranks).index(comm.rank),
        size=len(ranks),
        link=_Renumbered(comm.link, tuple(ranks)),
    )


class _Renumbered:
    """A link whose peers have other numbers in the process group."""

    def __init__(self, link: Transport, ranks: tuple[int, ...]) -> None:
        self._link, self._ranks = link, ranks

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        """As the process group's link, with its numbers."""
        ranks = self._ranks
        return self._link.exchange(
            {ranks[peer]: array for peer, array in sends.items()},
            {ranks[peer]: array for peer, array in receives.items()},
        )

    def report(self, event: PlainData) -> None:
        """As the process group's link."""
        self._link.report(event)

    def should_stop(self) -> bool:
        """As the process group's link."""
        return self._link.should_stop()
