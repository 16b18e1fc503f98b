"""What one call of a torch function costs in floating-point operations, forward and backward.

The convention, for every count of FLOPs in Sixfold:

- a multiply-add is 2 operations; the addition of a bias is part of the last one and not counted;
- products (convolution, linear, matrix product) are counted as the textbook's sums, whatever
  algorithm computes them: 2 N K H' W' C R S / groups for a convolution;
- everything else counts the operations of its formula on each element, one each, also where one
  of them is an exponential or a root: ReLU 1, batch-norm 6 forward and 10 backward, max-pool R S
  comparisons for each output;
- moving numbers (views, copies, concatenation, padding) counts nothing; it shows in the bytes.

Legend: N images, C input and K output channels, H' W' output rows and columns, R S kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor

Count = tuple[int, int]
"""Operations forward, and backward; of products, backward for each gradient that is wanted."""

PRODUCTS = frozenset(
    {
        *("conv1d", "conv2d", "conv3d"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("linear", "matmul", "mm", "bmm", "addmm", "mv", "baddbmm"),
    }
)
"""Functions that are sums of products: their backward pass reads the weights again."""

MOVES = frozenset(
    {
        *("cat", "concat", "stack", "pad", "flatten", "reshape", "view", "permute", "transpose"),
        *("contiguous", "clone", "to", "type", "float", "double", "squeeze", "unsqueeze", "chunk"),
        *("split", "narrow", "getitem", "expand", "expand_as", "unflatten", "movedim", "swapaxes"),
        *(
            "T",
            "mT",
            "select",
            "repeat",
            "tile",
            "roll",
            "flip",
            "pixel_shuffle",
            "channel_shuffle",
        ),
        *("identity", "detach", "alias", "view_as", "unbind", "pixel_unshuffle", "copy", "ravel"),
    }
)
"""Functions that move numbers and compute nothing."""

RESHAPES = frozenset({"flatten", "reshape", "view", "contiguous", "ravel", "unflatten", "clone"})
"""Functions that may have to copy, but whose gradient is the output's own in another shape."""

PASSED_ON = frozenset({"add", "cat", "concat"})
"""Functions whose inputs' gradients are the output's own, or parts of it: nothing is written."""

_ONE_EACH = frozenset(
    {
        *("relu", "relu6", "threshold", "leaky_relu", "hardtanh", "clamp", "abs", "neg", "sigmoid"),
        *("tanh", "exp", "log", "sqrt", "rsqrt", "square", "elu", "selu", "celu", "softplus"),
        *("hardswish", "hardsigmoid", "logsigmoid", "sin", "cos", "pow", "erf", "prelu"),
        *("maximum", "minimum", "where", "bernoulli", "masked_fill", "reciprocal"),
        *("clamp_min", "clamp_max", "sign", "rrelu"),
    }
)
_TWO_EACH = frozenset({"silu", "gelu", "mish", "softsign", "tanhshrink", "glu", "dropout", "lerp"})
_DROPOUTS = frozenset({"dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"})
_OF_TWO = frozenset({"mul", "div", "truediv"})
_OF_SUMS = frozenset({"add", "sub", "rsub"})
_NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm"})
_REDUCTIONS = frozenset({"mean", "sum", "amax", "max", "min", "amin", "adaptive_avg_pool2d"})
_REDUCTIONS |= {"adaptive_avg_pool1d", "adaptive_avg_pool3d", "adaptive_max_pool2d"}
_SOFTMAXES = frozenset({"softmax", "log_softmax"})
_MAX_POOLS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d"})
_AVG_POOLS = frozenset({"avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool2d"})

NORM_FLOPS = (6, 10)
"""Of each element: mean 1, centred square and its sum 3, scale and shift 2; backward the sums of
dy and of dy x 1 + 2, the centred and scaled input again 3, and the combination of them 4."""

EVAL_NORM_FLOPS = (2, 1)
"""With stored statistics batch-norm is one multiply-add an element."""

SOFTMAX_FLOPS = (4, 3)
"""Of each element: maximum, difference, exponential, sum; backward a product, a sum, a difference
(the division by the sum is one a row)."""


def plain_name(function: Callable[..., Any]) -> str:
    """A function's name without underscores: `add_`, `__iadd__` and `add` are one.

    >>> import torch
    >>> plain_name(torch.Tensor.add_), plain_name(torch.Tensor.__radd__)
    ('add', 'add')
    """
    name = str(getattr(function, "__name__", function))
    special = name.startswith("__") and name.endswith("__")
    name = name.strip("_")
    if special and name not in PRODUCTS and name[:1] in ("i", "r"):
        shorter = name[1:]
        if shorter in _OF_SUMS | _OF_TWO | {"matmul", "pow"}:
            return shorter
    return name


def count(
    name: str, arguments: dict[str, Any], inputs: list[Tensor], output: Tensor
) -> Count | None:
    """Operations of a call; None if the function is not known.

    Args:
        name: from `plain_name`.
        arguments: the call's, by place ("0", "1", ...) and by name.
        inputs: the tensors among them, in order.
        output: the result, on any device.
    """
    size, first = output.numel(), inputs[0].numel() if inputs else 0
    if name in PRODUCTS:
        one = 2 * _multiply_adds(name, arguments, inputs, output)
        return one, one
    if name in MOVES:
        return 0, 0
    if name in _ONE_EACH:
        return size, size
    if name in _TWO_EACH | _DROPOUTS:
        return 2 * size, 2 * size
    if name in _OF_SUMS:
        return size, 0
    if name in _OF_TWO:
        return size, 2 * size if len(inputs) > 1 else size
    if name in _NORMS:
        stored = name == "batch_norm" and not _argument(arguments, "5", "training", default=False)
        forward, backward = EVAL_NORM_FLOPS if stored else NORM_FLOPS
        return forward * size, backward * size
    if name in _SOFTMAXES:
        return SOFTMAX_FLOPS[0] * size, SOFTMAX_FLOPS[1] * size
    if name == "cross_entropy":
        return (SOFTMAX_FLOPS[0] + 1) * first, 2 * first
    if name in _REDUCTIONS:
        return first, first
    if name in _MAX_POOLS:
        window = _window(arguments, inputs[0].dim() - 2)
        return size * window, size
    if name in _AVG_POOLS:
        window = _window(arguments, inputs[0].dim() - 2)
        return size * window, size * window
    if name == "local_response_norm":
        depth = int(_argument(arguments, "1", "size", default=5))
        return size * (depth + 4), size * (depth + 6)
    return None


def _multiply_adds(
    name: str, arguments: dict[str, Any], inputs: list[Tensor], output: Tensor
) -> int:
    if name.startswith("conv_transpose"):
        # Every input value meets a kernel for each of its group's output channels: C, K / g, R, S.
        return inputs[0].numel() * prod(inputs[1].shape[1:])
    if name.startswith("conv"):
        # Every output value is a sum over the group's input channels: K, C / g, R, S.
        return output.numel() * prod(inputs[1].shape[1:])
    if name in ("addmm", "baddbmm"):
        return output.numel() * int(inputs[1].shape[-1])
    del arguments
    return output.numel() * int(inputs[0].shape[-1])


def _argument(arguments: dict[str, Any], place: str, name: str, *, default: Any) -> Any:
    return arguments.get(name, arguments.get(place, default))


def _window(arguments: dict[str, Any], dims: int) -> int:
    kernel = _argument(arguments, "1", "kernel_size", default=1)
    return int(kernel) ** dims if isinstance(kernel, int) else prod(int(k) for k in kernel)
