"""The rows of torch's own operations."""

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.models.graph import flops
from sixfold.models.graph.operations import (
    MOVE,
    PASS,
    PRODUCT,
    RESHAPE,
    Operation,
    operation_named,
    register_operation,
)


def _functions(*names: str) -> tuple[Any, ...]:
    """What torch has under these names: functions, those of torch.nn.functional first."""
    found = [getattr(home, name, None) for name in names for home in (functional, torch)]
    return tuple(dict.fromkeys(function for function in found if callable(function)))


def _forms(*names: str) -> tuple[Any, ...]:
    return (*_functions(*names), *(name for name in names if hasattr(Tensor, name)))


def _row(name: str, *names: str, **facts: Any) -> Operation:
    """An operation whose functions and methods have these names."""
    calls = facts.pop("calls", ()) + _forms(name, *names)
    return register_operation(Operation(name=name, calls=calls, **facts), names=(name, *names))


def _module_row(*modules: type[nn.Module], keeps_channels: bool = False) -> Operation:
    """Modules that share their functions with others."""
    row = Operation(
        name=modules[0].__name__, modules=modules, per_sample=True, keeps_channels=keeps_channels
    )
    return register_operation(row)


def _pointwise(
    name: str, *modules: type[nn.Module], also: tuple[Any, ...] = (), cost: int = 1
) -> Operation:
    """An operation element by element, with its forms in place, whose names end with `_`."""
    row = Operation(
        name=name,
        modules=modules,
        calls=(*_forms(name), *also),
        in_place=_forms(f"{name}_"),
        pointwise=True,
        keeps_channels=True,
        per_sample=True,
        flops=(cost, cost),
    )
    return register_operation(row)


for _name, _module in {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "selu": nn.SELU,
    "celu": nn.CELU, "hardtanh": nn.Hardtanh, "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish, "sigmoid": nn.Sigmoid, "logsigmoid": nn.LogSigmoid, "tanh": nn.Tanh,
    "softplus": nn.Softplus, "threshold": nn.Threshold, "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
}.items():  # fmt: skip
    _pointwise(_name, _module)
for _name, _module in {
    "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
}.items():  # fmt: skip
    _pointwise(_name, _module, cost=2)
for _name in ("clamp", "abs", "exp", "log", "sqrt", "rsqrt", "square", "sin", "cos", "erf",
              "reciprocal", "sign"):  # fmt: skip
    _pointwise(_name)
_pointwise("neg", also=(operator.neg,))
_pointwise("pow", also=(operator.pow,))
IDENTITY = _row(
    "contiguous", "clone", modules=(nn.Identity,), pointwise=True, keeps_channels=True,
    per_sample=True, flops=(0, 0), traffic=RESHAPE,
)  # fmt: skip

ADD = _row(
    "add", binary=True, in_place=(operator.iadd, "add_"), calls=(torch.add, operator.add),
    flops=(1, 0), traffic=PASS,
)  # fmt: skip
SUB = _row(
    "sub", binary=True, in_place=(operator.isub, "sub_"), calls=(torch.sub, operator.sub),
    flops=(1, 0),
)  # fmt: skip
_row("rsub", flops=(1, 0))
MUL = _row(
    "mul", binary=True, in_place=(operator.imul, "mul_"), calls=(torch.mul, operator.mul),
    flops=flops.of_multiplication,
)  # fmt: skip
DIV = _row(
    "div", binary=True, in_place=(operator.itruediv, "div_"), calls=(torch.div, operator.truediv),
    flops=flops.of_multiplication,
)  # fmt: skip

for _dims in (1, 2, 3):
    _row(
        f"conv{_dims}d", modules=(getattr(nn, f"Conv{_dims}d"),), per_sample=True, kernel="conv",
        flops=flops.of_convolution, traffic=PRODUCT,
    )  # fmt: skip
    _row(
        f"conv_transpose{_dims}d", modules=(getattr(nn, f"ConvTranspose{_dims}d"),),
        per_sample=True, kernel="conv", flops=flops.of_transposed_convolution, traffic=PRODUCT,
    )  # fmt: skip
    _row(
        f"max_pool{_dims}d", modules=(getattr(nn, f"MaxPool{_dims}d"),), per_sample=True,
        keeps_channels=True, flops=flops.of_max_pool,
        arguments=("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    )  # fmt: skip
    _row(
        f"avg_pool{_dims}d", modules=(getattr(nn, f"AvgPool{_dims}d"),), per_sample=True,
        keeps_channels=True, flops=flops.of_average_pool,
        arguments=("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
                   "divisor_override"),
    )  # fmt: skip
    for _kind in ("avg", "max"):
        _row(
            f"adaptive_{_kind}_pool{_dims}d",
            modules=(getattr(nn, f"Adaptive{_kind.title()}Pool{_dims}d"),),
            arguments=("output_size",), per_sample=True, keeps_channels=True,
            flops=flops.of_reduction,
        )  # fmt: skip
_row("lp_pool1d", modules=(nn.LPPool1d,), per_sample=True, keeps_channels=True)
_row(
    "lp_pool2d", modules=(nn.LPPool2d,), per_sample=True, keeps_channels=True,
    flops=flops.of_average_pool,
)  # fmt: skip
LINEAR = _row(
    "linear", modules=(nn.Linear,), per_sample=True, kernel="fc", flops=flops.of_product,
    traffic=PRODUCT,
)  # fmt: skip
_row("matmul", "mm", "bmm", "mv", flops=flops.of_product, traffic=PRODUCT)
_row("addmm", "baddbmm", flops=flops.of_added_product, traffic=PRODUCT)

BATCH_NORM = _row(
    "batch_norm", modules=(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    flops=flops.of_batch_norm,
)  # fmt: skip
_row("layer_norm", modules=(nn.LayerNorm,), per_sample=True, flops=flops.NORM_FLOPS)
_row("group_norm", modules=(nn.GroupNorm,), per_sample=True, flops=flops.NORM_FLOPS)
_row("instance_norm", flops=flops.NORM_FLOPS)
RESPONSE_NORM = _row(
    "local_response_norm", modules=(nn.LocalResponseNorm,), per_sample=True,
    arguments=("size", "alpha", "beta", "k"), flops=flops.of_response_norm,
)  # fmt: skip


def _known(name: str) -> Operation:
    row = operation_named(name)
    assert row is not None
    return row


RELU, RELU6 = _known("relu"), _known("relu6")
CONV_2D, MAX_POOL_2D, AVG_POOL_2D = _known("conv2d"), _known("max_pool2d"), _known("avg_pool2d")
ADAPTIVE_AVG_POOL_2D = _known("adaptive_avg_pool2d")
ADAPTIVE_MAX_POOL_2D = _known("adaptive_max_pool2d")


def _dropout(name: str, module: type[nn.Module]) -> Operation:
    return _row(name, modules=(module,), keeps_channels=True, flops=(2, 2))


DROPOUT, DROPOUT_2D = _dropout("dropout", nn.Dropout), _dropout("dropout2d", nn.Dropout2d)
_dropout("dropout1d", nn.Dropout1d)
_dropout("dropout3d", nn.Dropout3d)
_row(
    "alpha_dropout", "feature_dropout", modules=(nn.AlphaDropout,), keeps_channels=True,
    flops=(2, 2),
)  # fmt: skip


def _along_a_dim(layer: nn.Softmax) -> bool:
    return layer.dim not in (None, 0)


SOFTMAX = _row("softmax", modules=(nn.Softmax,), per_sample=_along_a_dim, flops=flops.SOFTMAX_FLOPS)
LOG_SOFTMAX = _row(
    "log_softmax", modules=(nn.LogSoftmax,), per_sample=_along_a_dim, flops=flops.SOFTMAX_FLOPS
)
_row("cross_entropy", flops=flops.of_cross_entropy)
MEAN = _row("mean", flops=flops.of_reduction)
_row("sum", "amax", "max", "min", "amin", flops=flops.of_reduction)
_row("prelu", modules=(nn.PReLU,), per_sample=True, flops=(1, 1))
_row("maximum", "minimum", "where", "bernoulli", "masked_fill", "clamp_min", "clamp_max", "rrelu",
     flops=(1, 1))  # fmt: skip
_row("glu", "lerp", flops=(2, 2))

FLATTEN = _row(
    "flatten", modules=(nn.Flatten,), arguments=("start_dim", "end_dim"),
    defaults={"start_dim": 0}, reshapes=True, flops=(0, 0), traffic=RESHAPE,
    per_sample=lambda layer: layer.start_dim > 0,
)  # fmt: skip
VIEW = _row("reshape", "view", reshapes=True, flops=(0, 0), traffic=RESHAPE)
_row("ravel", flops=(0, 0), traffic=RESHAPE)
SQUEEZE = _row("squeeze", reshapes=True, flops=(0, 0), traffic=MOVE)
_row(
    "unflatten", modules=(nn.Unflatten,), flops=(0, 0), traffic=RESHAPE,
    per_sample=lambda layer: isinstance(layer.dim, int) and layer.dim > 0,
)  # fmt: skip
CAT = _row("cat", "concat", "concatenate", flops=(0, 0), traffic=PASS)
PAD = _row("pad", flops=(0, 0), traffic=MOVE)  # perhaps of channels, or of samples
CONSTANT_PAD = _module_row(nn.ZeroPad2d, nn.ConstantPad2d, keeps_channels=True)
CONSTANT_PAD_3D = _module_row(nn.ConstantPad3d)
_module_row(nn.ReflectionPad2d, nn.ReplicationPad2d, keeps_channels=True)
_module_row(nn.ZeroPad1d, nn.ConstantPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d)
_row("interpolate", modules=(nn.Upsample,), per_sample=True, keeps_channels=True)
_row("pixel_shuffle", modules=(nn.PixelShuffle,), per_sample=True, flops=(0, 0), traffic=MOVE)
_row("pixel_unshuffle", modules=(nn.PixelUnshuffle,), per_sample=True, flops=(0, 0), traffic=MOVE)
_row("channel_shuffle", modules=(nn.ChannelShuffle,), per_sample=True, flops=(0, 0), traffic=MOVE)
_row(
    "stack", "permute", "transpose", "to", "type", "float", "double", "unsqueeze", "chunk", "split",
    "narrow", "getitem", "expand", "expand_as", "movedim", "swapaxes", "T", "mT", "select",
    "repeat", "tile", "roll", "flip", "identity", "detach", "alias", "view_as", "unbind", "copy",
    flops=(0, 0), traffic=MOVE,
)  # fmt: skip
