"""Removal of dead channels, which carry nothing any more: a smaller, dense network is left.

A layer's output map j is dead if all its weights are zero, so that it is a constant, or if the
next layer uses it nowhere. The layers in between must treat maps one by one (ReLU, pooling,
batch-norm in evaluation mode, flattening, dropout), so a constant stays a constant c; then

    next(x) = next without map j (x)  +  c * (sum of next's weights for j)

and the last term joins the next layer's bias. With padding the sum depends on the place, so there a
map is removed only if c = 0. The result is equal but for the rounding of that sum.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sixfold.models.graph.operations import operation_of

_LAYERS = (nn.Conv2d, nn.Linear)


def remove_dead_channels(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Remove what is dead between neighbouring layers of every `nn.Sequential`, in place.

    How many channels (or features of linear layers) were removed.
    """
    removed = 0
    # From the end to the beginning: a map that loses its last user is dead too.
    for pair in reversed(list(_pairs(network))):
        removed += _shrink(network, shape, *pair)
    return removed


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module], nn.Module]]:
    """Layers that follow each other, with what lies between them."""
    inner = {
        id(child)
        for module in network.modules()
        if type(module) is nn.Sequential
        for child in module
        if type(child) is nn.Sequential
    }
    for module in network.modules():
        if type(module) is not nn.Sequential or id(module) in inner:
            continue
        first: nn.Module | None = None
        between: list[nn.Module] = []
        for leaf in _leaves(module):
            if type(leaf) in _LAYERS:
                if first is not None:
                    yield first, between, leaf
                first, between = leaf, []
            elif first is not None and _leaves_channels_apart(leaf):
                between.append(leaf)
            else:
                first = None


def _leaves_channels_apart(layer: nn.Module) -> bool:
    row = operation_of(layer)
    known = type(layer) in (nn.BatchNorm2d, nn.Flatten)
    return known or (row is not None and row.leaves_channels_apart)


def _leaves(sequence: nn.Sequential) -> Iterator[nn.Module]:
    """Modules in the order in which they run, nested sequences opened."""
    for child in sequence:
        if type(child) is nn.Sequential:
            yield from _leaves(child)
        else:
            yield child


def _shrink(
    network: nn.Module,
    shape: tuple[int, int, int],
    first: nn.Module,
    between: list[nn.Module],
    second: nn.Module,
) -> int:
    """Remove the dead channels between two layers; how many there were."""
    assert isinstance(first, _LAYERS), "see _pairs"
    assert isinstance(second, _LAYERS), "see _pairs"
    if any(isinstance(layer, nn.Conv2d) and layer.groups != 1 for layer in (first, second)):
        return 0
    maps = len(first.weight)
    constant, per_map = _constants(network, shape, first, between)
    if isinstance(second, nn.Conv2d):
        per_map = 1
    # (K', maps, everything else)
    users = second.weight.detach().reshape(len(second.weight), maps, -1)
    silent = ~(first.weight.detach().reshape(maps, -1) != 0).any(1)
    unused = ~(users != 0).any(2).any(0)
    padded = isinstance(second, nn.Conv2d) and _is_padded(second)
    uniform = ~torch.isnan(constant)
    may_fold = uniform & ((constant == 0) if padded else uniform)
    dead = unused | (silent & may_fold)
    if dead.all():
        dead[0] = False  # a layer needs a channel
    if not dead.any():
        return 0
    keep = torch.nonzero(~dead).reshape(-1)
    _fold(second, users, dead & ~unused, constant)
    _keep(first, 0, keep, "weight", "bias")
    for norm in between:
        if isinstance(norm, nn.BatchNorm2d):
            _keep(norm, 0, keep, "weight", "bias", "running_mean", "running_var")
            norm.num_features = len(keep)
    places = (keep[:, None] * per_map + torch.arange(per_map)).reshape(-1)
    _keep(second, 1, places, "weight")
    for layer, side, size in ((first, "out", len(keep)), (second, "in", len(places))):
        setattr(layer, f"{side}_{'channels' if isinstance(layer, nn.Conv2d) else 'features'}", size)
    return int(dead.sum())


def _constants(
    network: nn.Module, shape: tuple[int, int, int], first: nn.Module, between: list[nn.Module]
) -> tuple[Tensor, int]:
    """What each map of `first` is to the next layer if its weights are zero; NaN if not one value.

    (maps,), and how many features a map becomes.
    """
    assert isinstance(first, _LAYERS), "see _pairs"
    sizes: list[torch.Size] = []

    def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(output.shape)

    handle = first.register_forward_hook(hook)
    try:
        with torch.inference_mode():
            network(torch.zeros(1, *shape, dtype=first.weight.dtype))
    finally:
        handle.remove()
    bias = torch.zeros(len(first.weight), dtype=first.weight.dtype)
    if first.bias is not None:
        bias = first.bias.detach().clone()
    x = bias.reshape(1, -1, *[1] * (len(sizes[0]) - 2)).expand(sizes[0])
    with torch.inference_mode():
        for module in between:
            x = module(x)
    values = x.clone().reshape(len(bias), -1)
    first_value = values[:, 0]
    same = (values == first_value[:, None]).all(1)
    return torch.where(same, first_value, torch.nan), values.shape[1]


def _is_padded(layer: nn.Conv2d) -> bool:
    return isinstance(layer.padding, str) or any(layer.padding)


def _fold(layer: nn.Conv2d | nn.Linear, users: Tensor, dead: Tensor, constant: Tensor) -> None:
    total = users.sum(2)[:, dead] @ constant[dead]
    if not (total != 0).any():
        return
    old = 0 if layer.bias is None else layer.bias.detach()
    layer.bias = nn.Parameter(old + total, requires_grad=False)


def _keep(module: nn.Module, dim: int, places: Tensor, *names: str) -> None:
    """Leave some places of a dim of some parameters and buffers."""
    for name in names:
        value = getattr(module, name)
        if value is not None:
            kept = value.detach().index_select(dim, places)
            is_buffer = not isinstance(value, nn.Parameter)
            setattr(module, name, kept if is_buffer else nn.Parameter(kept, requires_grad=False))
