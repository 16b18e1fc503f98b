"""What operations do to feature maps: keep, flatten, join or mix them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from sixfold.training.layers.dropout import KeyedDropout
from sixfold.training.step.norm_sync import SyncBatchNorm

KEEPS_MAPS: tuple[type[nn.Module], ...] = (
    nn.Identity, KeyedDropout,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.Upsample,
)  # fmt: skip
"""Modules that treat every map by itself and all of them alike."""

_ELEMENTWISE: set[Any] = {
    operator.add, operator.iadd, operator.sub, operator.mul, operator.imul,
    torch.add, torch.sub, torch.mul, "add", "add_", "sub", "sub_", "mul", "mul_",
}  # fmt: skip

_KEEPS: set[Any] = {
    torch.relu, torch.sigmoid, torch.tanh, torch.clamp,
    nn.functional.relu, nn.functional.relu6, nn.functional.leaky_relu, nn.functional.elu,
    nn.functional.gelu, nn.functional.silu, nn.functional.hardtanh, nn.functional.hardswish,
    nn.functional.sigmoid, nn.functional.tanh, nn.functional.dropout, nn.functional.dropout2d,
    nn.functional.max_pool2d, nn.functional.avg_pool2d, nn.functional.adaptive_avg_pool2d,
    nn.functional.adaptive_max_pool2d, nn.functional.interpolate,
    "relu", "relu_", "sigmoid", "tanh", "clamp", "contiguous", "clone",
}  # fmt: skip


def is_leaf(module: nn.Module) -> bool:
    """Modules of this package that tracing must not enter."""
    return isinstance(module, KeyedDropout | SyncBatchNorm)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.Graph:
    """The network's operations, found by torch.fx without running it on data.

    Raises:
        Exception: of any kind, where a network's `forward` cannot be traced.
    """
    return _Tracer().trace(model)


def kind_of(node: fx.Node) -> str:
    """What a function or method does to maps.

    Returns:
        "keeps", "flattens", "joins" (side by side), "elementwise", "size" (of something), or ""
        for anything else.
    """
    target, arguments = node.target, node.args[1:]
    if target in ("size", "dim", operator.getitem) or target is getattr:
        return "size"
    if target in _ELEMENTWISE:
        return "elementwise"
    if target in _KEEPS:
        return "keeps"
    if target in (torch.flatten, "flatten"):
        flat = (node.kwargs.get("start_dim", arguments[0] if arguments else 0)) == 1
        return "flattens" if flat and len(arguments) <= 1 else ""
    if target in ("view", "reshape"):
        return "flattens" if len(arguments) == 2 else ""
    if target in (torch.mean, "mean"):
        dims = node.kwargs.get("dim", arguments[0] if arguments else None)
        whole = isinstance(dims, tuple | list) and sorted(dims) in ([2, 3], [-2, -1])
        keeps = node.kwargs.get("keepdim", arguments[1] if len(arguments) > 1 else False)
        return ("keeps" if keeps else "flattens") if whole else ""
    if target in (torch.cat, torch.concat):
        dim = node.kwargs.get("dim", arguments[0] if arguments else 0)
        return "joins" if dim == 1 else ""
    return ""
