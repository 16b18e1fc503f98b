"""Products of a lane's slots with a dictionary, in which a slot's bits depend on that slot alone.

A library's matrix product may compute the rows of a block in kernels of different sizes, which add
in different orders: on some processors the last rows of a small product have other last bits than
the first. Whether rows are alike for a size is tried once; where they are not, each slot is
multiplied by itself, through the same memory, so that its alignment is the same too.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

_TRIES = 16  # two orders of a sum give many a row the same bits: two in five, of 30 terms


def slot_product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """`left @ right` into `out`, each slot with the same bits in any place beside any others.

    Left (W, N) or (G, W, N) has a row for each slot; right is (N, M) or (G, N, M).
    """
    if left.dim() == 2:
        slot_product(left[None], right[None], out[None])
        return out
    groups, width, inner = left.shape
    if slots_are_alike(groups, width, inner, right.shape[2], left.dtype, right.stride(2) == 1):
        return torch.bmm(left, right, out=out) if groups > 1 else _one(left, right, out)
    row = left.new_empty(groups, 1, inner)
    made = left.new_empty(groups, 1, right.shape[2])
    for slot in range(width):
        row.copy_(left[:, slot : slot + 1])
        torch.bmm(row, right, out=made)
        out[:, slot : slot + 1].copy_(made)
    return out


def _one(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    torch.mm(left[0], right[0], out=out[0])
    return out


BLOCK = 256
"""Positions that are multiplied at a time: always as many, so that a position's bits do not follow
from how many others a tile has."""

COLUMNS = 8  # of a product of doubles are computed at a time


def convolve(maps: Tensor, kernels: Tensor) -> Tensor:
    """Maps (W, N, U, V) convolved with kernels (M, N, R, S), without padding.

    The library computes some convolutions as products whose sums depend on the number of positions,
    on some processors: 1x1 kernels, which are what is left of atoms after sorting by phase where
    strides reach as far as atoms, and all in float64. Those are products of blocks here.
    """
    taps = (kernels.shape[2], kernels.shape[3])
    if taps != (1, 1) and maps.dtype != torch.float64:
        return functional.conv2d(maps, kernels)
    width, atoms, inner = len(maps), len(kernels), kernels[0].numel()
    # (W, P, Q, N, R, S): what each position sees
    seen = maps.unfold(2, taps[0], 1).unfold(3, taps[1], 1).permute(0, 2, 3, 1, 4, 5)
    rows, columns = seen.shape[1:3]
    # Where columns are left over, the library's products of doubles treat rows unlike.
    outer = -(-atoms // COLUMNS) * COLUMNS if maps.dtype == torch.float64 else atoms
    right = kernels.new_zeros(inner, outer)
    right[:, :atoms] = kernels.flatten(1).t()
    count = width * rows * columns
    left = maps.new_zeros(-(-count // BLOCK) * BLOCK, inner)
    left[:count].view(seen.shape).copy_(seen)
    out = maps.new_empty(len(left), outer)
    for start in range(0, len(left), BLOCK):
        block = slice(start, start + BLOCK)
        slot_product(left[block], right, out[block])
    return out[:count, :atoms].view(width, rows, columns, atoms).permute(0, 3, 1, 2).contiguous()


@cache
def slots_are_alike(
    groups: int, width: int, inner: int, outer: int, dtype: torch.dtype, by_rows: bool
) -> bool:
    """Whether this machine's product of these sizes gives equal rows equal bits.

    `by_rows`: rows of the right factor lie together, rather than columns.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (groups, inner, outer) if by_rows else (groups, outer, inner)
    right = torch.randn(shape, generator=generator, dtype=dtype)
    right = right if by_rows else right.transpose(1, 2)
    out = torch.empty(groups, width, outer, dtype=dtype)
    for _ in range(_TRIES):
        row = torch.randn(groups, 1, inner, generator=generator, dtype=dtype)
        left = row.expand(groups, width, inner).contiguous()
        made = torch.bmm(left, right, out=out) if groups > 1 else _one(left, right, out)
        if not torch.equal(made, made[:, :1].expand_as(made)):
            return False
    return True
