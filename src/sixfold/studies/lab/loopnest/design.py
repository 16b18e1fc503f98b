"""What all designs have in common: a way to turn the images of a problem into blocks of outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.loopnest.batch import by_batch, by_batch_and_channels
from sixfold.studies.lab.loopnest.blocks import Meters, Sizes
from sixfold.studies.lab.loopnest.design1 import design1
from sixfold.studies.lab.loopnest.design2 import design2
from sixfold.studies.lab.loopnest.design2b import design2b
from sixfold.studies.lab.loopnest.design3 import by_rows_and_columns, design3
from sixfold.studies.lab.problem import Problem

Design = Callable[[Cluster, Problem, Sizes, Meters], Iterator[Any]]
"""Yields RDDs of blocks of outputs; together they hold every output once."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A design by its name."""

    what: str
    run: Design


DESIGNS = {
    "1": Entry(
        what="iterate over blocks of rows, columns and kernel; map on chan_n; reduce on chan_n1",
        run=design1,
    ),
    "2": Entry(
        what="replicate the input for every kernel position; map over all loops; reduce over "
        "kern_x, kern_y, chan_n1",
        run=design2,
    ),
    "2b": Entry(
        what="replicate along rows for every kern_x; iterate over kern_y",
        run=design2b,
    ),
    "3": Entry(what="tiles of R x C outputs, with the input around them", run=design3),
    "batch": Entry(what="divide the images", run=by_batch),
    "batch-channels": Entry(what="divide images and output channels", run=by_batch_and_channels),
    "rows-columns": Entry(
        what="divide every image's rows and columns among the slots", run=by_rows_and_columns
    ),
}
"""The designs, by the names that `--designs` takes."""
