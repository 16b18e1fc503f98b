"""Which elements of a network's flat state make up each feature map.

A map is what one output of a layer is computed with: row k of a convolution's or linear layer's
weight, element k of its bias, and channel k of the normalisation directly behind it, running
statistics included. Normalisation that stands elsewhere has maps of its own, one a channel; any
other tensor is one map as a whole.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from sixfold.models.graph.trace import Tracer
from sixfold.training.step.flat import FlatState


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """The maps of a network's state, the vector [parameters | float buffers]."""

    of: Tensor  # (P + Q,) int64, the map that each element belongs to; padding has the last
    layers: dict[str, range]  # layer -> its maps, in the network's order
    count: int  # M, the number of maps, padding's among them


def feature_maps(state: FlatState) -> FeatureMaps:
    """Find the maps of a network's flat state."""
    places = _places(state)
    owners = _norm_owners(state.model)
    of = torch.full((len(state.parameters) + len(state.buffers),), -1, dtype=torch.int64)
    layers: dict[str, range] = {}
    count = 0
    for name, module in state.model.named_modules():
        tensors = _own_tensors(name, module, places)
        for tensor, place in tensors.items():
            layer, maps = _maps_of(name, module, tensor, place)
            layer = owners.get(layer, layer)
            if layer not in layers or len(layers[layer]) != maps:
                layer = layer if layer not in layers else tensor
                layers[layer] = range(count, count + maps)
                count += maps
            numbers = torch.arange(layers[layer].start, layers[layer].stop)
            rows = place.flatten() if maps == 1 else _rows(module, place)
            of[rows] = numbers.repeat_interleave(place.numel() // maps) if maps > 1 else numbers
    of[of < 0] = count
    return FeatureMaps(of=of, layers=layers, count=count + 1)


def named_places(state: FlatState) -> dict[str, Tensor]:
    """Where each trainable parameter lies: name -> indices into the (P,) vector, in its shape."""
    return dict(state.named_views(torch.arange(len(state.parameters))))


def _places(state: FlatState) -> dict[str, Tensor]:
    """`named_places` with the float buffers behind the parameters."""
    buffers = torch.arange(len(state.buffers)) + len(state.parameters)
    return named_places(state) | dict(state.named_buffers(buffers))


def _own_tensors(name: str, module: nn.Module, places: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a module itself, not of its children."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    names = [f"{name}.{tensor}" if name else tensor for tensor, _ in own]
    return {tensor: places[tensor] for tensor in names if tensor in places}


def _maps_of(name: str, module: nn.Module, tensor: str, place: Tensor) -> tuple[str, int]:
    """The layer that a tensor belongs to, and how many maps that has."""
    if isinstance(module, _ConvNd | nn.Linear | _NormBase | nn.GroupNorm) and place.dim() > 0:
        if not (isinstance(module, _ConvNd) and module.transposed):
            return name, place.shape[0]
        if module.groups == 1:
            return name, module.out_channels
    return tensor, 1


def _rows(module: nn.Module, place: Tensor) -> Tensor:
    """Indices of a tensor's elements, map by map."""
    if isinstance(module, _ConvNd) and module.transposed and place.dim() > 1:
        place = place.transpose(0, 1)
    return place.flatten()


def _norm_owners(model: nn.Module) -> dict[str, str]:
    """Normalisation -> the convolution or linear layer whose output it takes directly."""
    try:
        graph = Tracer().trace(model)
    except Exception:
        return {}
    owners = {}
    for node in graph.nodes:
        if node.op != "call_module" or len(node.all_input_nodes) != 1:
            continue
        source = node.all_input_nodes[0]
        if source.op != "call_module":
            continue
        norm = model.get_submodule(str(node.target))
        layer = model.get_submodule(str(source.target))
        if isinstance(norm, _NormBase) and isinstance(layer, _ConvNd | nn.Linear):
            owners[str(node.target)] = str(source.target)
    return owners
