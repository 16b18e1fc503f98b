"""Exchanges as operations: the executor that runs undivided networks runs them between layers.

All ranks of a model-parallel group run the same operations in the same order, forward and
backward, also a rank that holds nothing, so they meet.

A convolution and the exchange that brings its input are one operation where halos can travel while
something is computed: forward the output rows that follow from what the rank holds itself, and then
those at its borders; backward the gradient of the input first, and that of the weights while it
travels. Whether that is done follows from shapes alone, so bits do not depend on timing.

Legend: n samples, C H W of the input, K output channels, O P output rows and columns.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from sixfold.distributed.process_group import Communicator
from sixfold.models.graph.operations import Operation, operation_of, register_operation
from sixfold.training.layers.convolution import ConvOp
from sixfold.training.layers.explicit import EXPLICIT, PAIRS, Made, Weights
from sixfold.training.strategies.model_parallel.exchange import (
    NO_PADDING,
    Padding,
    add,
    gather,
    start_add,
    start_gather,
)
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import Box, Interval, Layout
from sixfold.training.strategies.model_parallel.move import plan


class Gather(nn.Module):
    """What a divided layer does to its input first: a halo exchange or an all-gather, and padding.

    Args:
        comm: the group.
        owned: layout of the input.
        needs: box of every rank.
        duplicated, needed_by: see `sixfold.training.strategies.model_parallel.move.plan`.
        padding: of this rank.
        fill: value of the padding.

    Attributes:
        move: this rank's part in the exchange.
    """

    def __init__(
        self,
        comm: Communicator,
        owned: Layout,
        needs: list[Box],
        *,
        duplicated: Iterable[str] = (),
        needed_by: Mesh | None = None,
        padding: Padding = NO_PADDING,
        fill: float = 0.0,
    ) -> None:
        super().__init__()
        self.comm, self.padding, self.fill = comm, padding, fill
        self.move = plan(comm.rank, owned, needs, duplicated, needed_by)

    @property
    def is_trivial(self) -> bool:
        """Whether this rank has what it needs, and nobody needs anything of it."""
        return self.padding == NO_PADDING and self.move.is_trivial(self.comm.rank)

    def hold(self, box: Box) -> None:
        """Say that this rank holds `box` of the network's input, in which all it needs lies.

        The input has no gradient, so nothing comes back.
        """
        self.move = dataclasses.replace(self.move, own=box, collects=(), contributes=())

    def forward(self, x: Tensor) -> Tensor:
        """(n, *own) -> (n, *need and padding)."""
        return gather(self.comm, x, self.move, self.padding, self.fill)


class GatherOp:
    """`Gather`; what was fetched is sent back and added in the backward pass."""

    has_weights = False

    def __init__(self, layer: Gather) -> None:
        self._layer = layer

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - costs nothing
        """(n, *own) -> (n, *need and padding)."""
        return self._layer(x), None

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, *need and padding) -> (n, *own)."""
        return add(self._layer.comm, grad, self._layer.move, self._layer.padding)


class GatherConvOp:
    """`Gather` and the convolution behind it; see above."""

    has_weights = True

    def __init__(self, gather: Gather, conv: ConvOp) -> None:
        self._gather, self._conv = gather, conv
        self._held = rows_held(gather)

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, *own) -> (n, *own output)."""
        g, conv = self._gather, self._conv
        y, end = start_gather(g.comm, x, g.move, g.padding, g.fill)
        rows = None if self._held is None else conv.rows_before(y, self._held)
        if rows is None:
            end()
            return conv.forward(y, wanted)
        return conv.forward_in_rows(y, wanted, rows, end)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, *own output) -> (n, *own)."""
        gather = self._gather
        parts = self._conv.backward_in_two(saved, grad, out)
        if parts is None:
            dx = self._conv.backward(saved, grad, out)
            return None if dx is None else add(gather.comm, dx, gather.move, gather.padding)
        dx, write_weights = parts
        end = start_add(gather.comm, dx, gather.move, gather.padding)
        write_weights()
        return end()


def rows_held(gather: Gather) -> Interval | None:
    """Rows of what a gather brings that are there before the exchange has ended.

    Returns:
        None if that is all of them, or none whole.
    """
    move, (before, after) = gather.move, gather.padding[1]
    (_, need, _), (_, own, _) = move.need, move.own
    others = [peer for peer, _ in move.takes if peer != gather.comm.rank]
    is_whole = all(
        had[0] <= wanted[0] and wanted[1] <= had[1]
        for had, wanted in zip(move.own[::2], move.need[::2], strict=True)
    )
    low, high = max(own[0], need[0]), min(own[1], need[1])
    if not others or not is_whole or low >= high:
        return None
    first = low - need[0] + (before if low > need[0] else 0)
    last = high - need[0] + before + (after if high == need[1] else 0)
    return first, last


def _gather(layer: Gather, behind: nn.Module | None, weights: Weights) -> Made:
    row = operation_of(behind)
    if row in EXPLICIT and behind is not None and weights.all_trained(behind):
        conv = EXPLICIT[row](behind, weights)
        if isinstance(conv, ConvOp):
            return GatherConvOp(layer, conv), 2
    return GatherOp(layer), 1


class ReduceScatter(nn.Module):
    """What a divided layer does to partial sums: add them up into the layout of its output.

    Args:
        comm: the group.
        held: box of the output for which each rank holds partial sums.
        target: layout of the output.
        duplicated: axes along which ranks hold the same sums, not summands.
    """

    def __init__(
        self, comm: Communicator, held: list[Box], target: Layout, *, duplicated: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.comm = comm
        self.move = plan(comm.rank, target, held, duplicated)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *held) -> (n, *own)."""
        return add(self.comm, x, self.move)


class ReduceScatterOp:
    """`ReduceScatter`; its backward pass gathers the gradient of all that was added."""

    has_weights = False

    def __init__(self, layer: ReduceScatter) -> None:
        self._layer = layer

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:  # noqa: ARG002 - costs nothing
        """(n, *held) -> (n, *own)."""
        return self._layer(x), None

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002 - no weights
        """(n, *own) -> (n, *held)."""
        return gather(self._layer.comm, grad, self._layer.move)


GATHER = register_operation(Operation(name="halo_exchange", modules=(Gather,)))
REDUCE_SCATTER = register_operation(Operation(name="reduce_scatter", modules=(ReduceScatter,)))
PAIRS[Gather] = _gather
EXPLICIT[REDUCE_SCATTER] = lambda layer, _weights: ReduceScatterOp(layer)
