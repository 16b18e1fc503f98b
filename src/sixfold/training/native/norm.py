"""Batch-norm with the activation behind it: training's forward and backward pass.

torch takes four passes over the maps for batch-norm and ReLU forward and five backward, some of
them in double precision; for networks of small convolutions, such as MobileNet's, that is more than
half of a step. Here it is two forward, of which one writes, and two backward; the activation is a
comparison on the way, and nothing is kept but the input, which the convolution before has made
anyway. See norm.inc for the formulas and for the order of the sums, in which NumPy adds here where
the C module was not built, so that both have the same bits.

Ioffe and Szegedy, "Batch normalization", ICML 2015.

Legend: n images, C channels, H W rows and columns, R = n H W.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sixfold.training.native import max_pool

BLOCK = 64
"""Rows that are added up in the type of the elements, before double takes over; as in kernels.c."""

NONE, RELU, RELU6 = 0, 1, 2  # what stands behind the norm

_SUMS, _APPLY, _BACK_SUMS, _BACK_APPLY = range(4)

Array = NDArray[Any]


class Saved(NamedTuple):
    """What the backward pass needs."""

    x: Tensor  # (n, C, H, W) the input
    mean: Array  # (C,) float64
    inverse: Array  # (C,) float64, 1 / sqrt(var + eps)
    scale: Array  # (C,) factor of the input, in the type that is computed with
    offset: Array  # (C,) what is added
    act: int  # what stands behind
    rows: int  # over how many rows the statistics are, here and elsewhere


class StatisticsReduction(Protocol):
    """Who holds the other rows of the same channels: adds what this holder has and all others."""

    def statistics(self, rows: int, mean: Array, squares: Array) -> tuple[int, Array, Array]:
        """Of all rows: their number, mean, and sum of squared differences from it, (C,) float64."""
        ...

    def sums(self, values: Array) -> Array:
        """(k,) float64, added over all holders."""
        ...


class Statistics(NamedTuple):
    """Mean and (biased) variance of every channel, (C,) float64, over so many rows."""

    mean: Array
    var: Array
    rows: int


def forward(
    x: Tensor,
    weight: Array,
    bias: Array,
    eps: float,
    act: int,
    reduction: StatisticsReduction | None = None,
) -> tuple[Tensor, Saved, Statistics]:
    """Normalise every channel by its own mean and variance.

    Images (n, C, H, W) are channels-last; float32, float64 or bfloat16. Weight and bias (C,) are
    float32, or float64 for float64 images; `act` is NONE, RELU or RELU6. `reduction` has the other
    rows, if these are not all; then there may be none here.
    """
    kind = weight.dtype
    if reduction is None and _in_one_call():
        return _forward_in_c(x, weight, bias, eps, act)
    rows, mean, squares = _own_statistics(x)
    if reduction is not None:
        rows, mean, squares = reduction.statistics(rows, mean, squares)
    var = squares / rows
    inverse = 1.0 / np.sqrt(var + eps)
    scale = (weight * inverse).astype(kind)
    offset = (bias - scale * mean).astype(kind)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    if max_pool.kernels is None:
        maps = _act(scale * _rows(x) + offset, act)
        _rows_of(y).copy_(torch.from_numpy(maps))
    elif x.numel():
        _call(_APPLY, x, act, y=y, scale=scale, offset=offset)
    return y, Saved(x, mean, inverse, scale, offset, act, rows), Statistics(mean, var, rows)


def _own_statistics(x: Tensor) -> tuple[int, Array, Array]:
    if not x.numel():
        return 0, np.zeros(x.shape[1]), np.zeros(x.shape[1])
    rows = x.numel() // x.shape[1]
    shift = x[0, :, 0, 0].to(_wide(x)).numpy().copy()
    first, second = _sums(x, None, shift, None, None, NONE)
    return rows, shift + first / rows, np.maximum(second - first * first / rows, 0.0)


def backward(
    saved: Saved, grad: Tensor, reduction: StatisticsReduction | None = None
) -> tuple[Tensor, Array, Array]:
    """The gradients of input (n, C, H, W), weight and bias, (C,) float64 each.

    `grad` (n, C, H, W) is the output's, in the input's type; with `reduction` the gradients of
    weight and bias are those of the rows here.
    """
    x, mean, inverse, scale, offset, act, rows = saved
    grad = _like(grad, x)
    if reduction is None and _in_one_call():
        return _backward_in_c(saved, grad)
    kind, channels = scale.dtype, x.shape[1]
    middle = mean.astype(kind)
    sums = np.zeros(2 * channels)
    if x.numel():
        sums = np.concatenate(_sums(x, grad, middle, scale, offset, act))
    total = sums if reduction is None else reduction.sums(sums)
    db, dw = sums[:channels], sums[channels:] * inverse
    slope = -scale * (total[channels:] * inverse) * inverse / rows
    level = (-scale * total[:channels] / rows - slope * middle).astype(kind)
    slope = slope.astype(kind)
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    if max_pool.kernels is None:
        maps = _rows(x)
        g = _passed(_rows(grad), scale * maps + offset, act)
        _rows_of(dx).copy_(torch.from_numpy(scale * g + slope * maps + level))
    elif x.numel():
        _call(
            _BACK_APPLY, x, act, y=grad, dx=dx, scale=scale, offset=offset, slope=slope,
            level=level,
        )  # fmt: skip
    return dx, dw, db


def _in_one_call() -> bool:
    """Whether the C module makes a whole pass, or only the parts of one that touch the maps.

    In the middle of a network Python's own code has left the cache, and the twenty small calls of
    NumPy around those parts took longer than the parts did for 64 maps of 8x8.
    """
    return hasattr(max_pool.kernels, "norm_forward")


def _forward_in_c(
    x: Tensor, weight: Array, bias: Array, eps: float, act: int
) -> tuple[Tensor, Saved, Statistics]:
    channels = x.shape[1]
    rows = x.numel() // channels
    weight, bias = np.ascontiguousarray(weight), np.ascontiguousarray(bias)
    stats, line = np.zeros((5, channels)), np.empty((3, channels), weight.dtype)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    max_pool.kernels.norm_forward(
        x.element_size(), rows, channels, act, x.data_ptr(), y.data_ptr(), weight.ctypes.data,
        bias.ctypes.data, stats.ctypes.data, line.ctypes.data, eps,
    )  # fmt: skip
    _, _, mean, var, inverse = stats
    return y, Saved(x, mean, inverse, line[1], line[2], act, rows), Statistics(mean, var, rows)


def _backward_in_c(saved: Saved, grad: Tensor) -> tuple[Tensor, Array, Array]:
    x, mean, inverse, scale, offset, act, _ = saved
    channels = x.shape[1]
    sums, line = np.zeros((2, channels)), np.empty((3, channels), scale.dtype)
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    arrays = (mean, inverse, scale, offset, sums, line)
    max_pool.kernels.norm_backward(
        x.element_size(), x.numel() // channels, channels, act, x.data_ptr(), grad.data_ptr(),
        dx.data_ptr(), *(array.ctypes.data for array in arrays),
    )  # fmt: skip
    return dx, sums[1], sums[0]


def suits(x: Tensor) -> bool:
    """Whether a tensor is one that can be normalised here: N H W C in memory, several rows."""
    return (
        isinstance(x, Tensor)
        and x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64, torch.bfloat16)
        and x.numel() > x.shape[1]
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _sums(
    x: Tensor,
    grad: Tensor | None,
    shift: Array,
    scale: Array | None,
    offset: Array | None,
    act: int,
) -> tuple[Array, Array]:
    """(C,) sums of d and d^2 with d = x - shift; given `grad`, of g and g d."""
    channels = x.shape[1]
    if max_pool.kernels is not None:
        sums = np.zeros(2 * channels, np.float64)
        _call(
            _SUMS if grad is None else _BACK_SUMS, x, act, y=grad, shift=shift, scale=scale,
            offset=offset, sums=sums,
        )  # fmt: skip
        return sums[:channels], sums[channels:]
    maps = _rows(x)
    d = maps - shift
    if grad is None:
        return _block_sums(d), _block_sums(d * d)
    assert scale is not None
    g = _passed(_rows(grad), scale * maps + offset, act)
    return _block_sums(g), _block_sums(g * d)


def _block_sums(rows: Array) -> Array:
    """(C,) float64: the sum of (R, C) in the C module's order."""
    channels = rows.shape[1]
    if channels == 1:  # NumPy adds a single column in another order: pairwise
        rows = np.repeat(rows, 2, axis=1)
    whole = len(rows) // BLOCK * BLOCK
    blocks = np.add.reduce(rows[:whole].reshape(-1, BLOCK, rows.shape[1]), axis=1)
    if whole < len(rows):
        blocks = np.concatenate([blocks, np.add.reduce(rows[whole:], axis=0)[None]])
    total: Array = np.add.reduce(blocks.astype(np.float64), axis=0)
    return total[:channels]


def _act(x: Array, act: int) -> Array:
    if act:
        x = np.where(x <= 0, x.dtype.type(0), x)
    return np.where(x >= 6, x.dtype.type(6), x) if act == RELU6 else x


def _passed(g: Array, x: Array, act: int) -> Array:
    if act == NONE:
        return g
    stops = (x <= 0) | (x >= 6) if act == RELU6 else x <= 0
    return np.where(stops, g.dtype.type(0), g)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype == torch.bfloat16 else x.dtype


def _rows_of(x: Tensor) -> Tensor:
    """(R, C): the same memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _rows(x: Tensor) -> Array:
    found: Array = _rows_of(x).to(_wide(x)).numpy()
    return found


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """A gradient with the type and the layout of the input."""
    grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
    if grad.stride() == x.stride():
        return grad
    # Sizes of 1 leave strides open, and `contiguous` need not act.
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(grad)


def _call(
    what: int,
    x: Tensor,
    act: int,
    *,
    y: Tensor | None = None,
    dx: Tensor | None = None,
    shift: Array | None = None,
    scale: Array | None = None,
    offset: Array | None = None,
    slope: Array | None = None,
    level: Array | None = None,
    sums: Array | None = None,
) -> None:
    tensors = [0 if t is None else t.data_ptr() for t in (x, y, dx)]
    arrays = [0 if a is None else a.ctypes.data for a in (shift, scale, offset, slope, level, sums)]
    channels = x.shape[1]
    max_pool.kernels.norm(
        what, x.element_size(), x.numel() // channels, channels, act, *tensors, *arrays
    )
