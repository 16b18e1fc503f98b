"""Outputs that grow from job to job, and stay where they are."""

from __future__ import annotations

from typing import Any

from sixfold.studies.lab.loopnest.blocks import add, place_corner


class Accumulated:
    """A sum of RDDs of blocks that are all partitioned alike, so that adding moves nothing."""

    def __init__(self, partitions: int) -> None:
        self.total: Any = None  # the sum; None before the first
        self._partitions = partitions
        self._kept: Any = None

    def add(self, blocks: Any, *, last: bool) -> None:
        """Add blocks, by a job of their own unless they are the last.

        Args:
            blocks: an RDD of (corner, array), partitioned by `place_corner`.
            last: the sum is left to be computed by whoever uses it.
        """
        if self.total is not None:
            joined = self.total.union(blocks)
            blocks = joined.reduceByKey(add, self._partitions, place_corner)
        self.total = blocks
        if not last:
            level = type(self.total.getStorageLevel())  # pyspark's class; here it is not imported
            self.total.persist(level(_DISK, _MEMORY, False, False))
            self.total.foreach(_nothing)
            self.forget()
            self._kept = self.total

    def forget(self) -> None:
        """Let go of the sums before the last."""
        if self._kept is not None:
            self._kept.unpersist()
            self._kept = None


_DISK = _MEMORY = True


def _nothing(_: object) -> None:
    pass
