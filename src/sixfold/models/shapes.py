"""What passes between a network's layers, and which layer is to blame when it does not fit.

A network is run on the meta device, where tensors have shapes but no values: it costs
milliseconds and no memory whatever the size of the network. Hooks keep the chain of modules that
are running, so a failure is told with the innermost module's name, its kind and the sizes.

Legend: N batch, C channels, H rows, W columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.models.user_traceback import one_line

Shape = tuple[int, int, int]  # Channels, rows and columns of one image
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_TOO_SMALL = ("Kernel size can't be greater", "Output size is too small")
"""What torch says of a map that a convolution, or a pool, cannot take."""


class ShapeMismatchError(ValueError):
    """A layer cannot take what reaches it. The message names the layer, its kind and the sizes."""


@dataclass(frozen=True)
class _Call:
    name: str
    module: nn.Module
    inputs: tuple[Any, ...]


def times(sizes: tuple[int, ...] | list[int] | torch.Size) -> str:
    """Sizes as people write them."""
    return "x".join(str(size) for size in sizes)


def kind(module: nn.Module) -> str:
    """A module's class with the numbers that matter for shapes.

    >>> kind(nn.Conv2d(20, 50, 5))
    'Conv2d 20->50, kernel 5x5'
    >>> kind(nn.Linear(800, 500))
    'Linear 800->500'
    """
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        text = f"{name} {module.in_channels}->{module.out_channels}, "
        return text + f"kernel {times(_pair(module.kernel_size))}"
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features}->{module.out_features}"
    if isinstance(module, _POOLS):
        return f"{name} {times(_pair(module.kernel_size))}"
    if isinstance(module, nn.BatchNorm2d):
        return f"{name} {module.num_features}"
    return name


def run(network: nn.Module, images: Tensor, *, name: str = "") -> Any:
    """The network's output for `images`, with every failure explained.

    `name` is put before the names of its layers.
    """
    with torch.no_grad(), _followed(network, name) as trail:
        try:
            return network(images)
        except Exception as error:
            raise ShapeMismatchError(_explain(trail, error)) from error


def output_shape(layers: nn.Module, shape: Shape, *, name: str = "features") -> tuple[int, ...]:
    """Shape of what `layers`, known as `name` in the network, make of one image, without N.

    Nothing is computed: the layers run on the meta device, in evaluation mode, and are left as
    they were. Random state is not touched.
    """
    on_meta = {
        path: torch.empty_like(tensor, device="meta")
        for path, tensor in chain(layers.named_parameters(), layers.named_buffers())
    }
    was_training = layers.training
    layers.eval()
    try:
        bare = _Functional(layers, on_meta)
        output = run(bare, torch.empty((1, *shape), device="meta"), name=name)
    finally:
        layers.train(was_training)
    return tuple(output.shape[1:])


def flat_features(layers: nn.Module, shape: Shape, *, name: str = "features") -> int:
    """How many numbers `layers` make of one image: what the first linear layer takes."""
    return prod(output_shape(layers, shape, name=name))


class _Functional(nn.Module):
    """Layers called with other tensors in place of their own parameters and buffers."""

    def __init__(self, layers: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.layers = layers
        self.tensors = tensors

    def forward(self, images: Tensor) -> Any:
        """Run the layers on `images` (N, C, H, W) with the given tensors."""
        return torch.func.functional_call(self.layers, self.tensors, (images,))


@dataclass
class _Trail:
    # the chain of modules that are running, outermost first
    running: list[_Call] = field(default_factory=list)
    # name and output shape of the last module that gave maps (N, C, H, W)
    last_map: tuple[str, tuple[int, ...]] = ("", ())


@contextmanager
def _followed(network: nn.Module, name: str) -> Iterator[_Trail]:
    """While open, the trail of every run of `network`, whose own path is `name`."""
    trail = _Trail()
    handles = []
    for path, module in network.named_modules():
        if isinstance(network, _Functional):
            path = path.removeprefix("layers").removeprefix(".")
        full = ".".join(part for part in (name, path) if part)

        def enter(module: nn.Module, inputs: tuple[Any, ...], full: str = full) -> None:
            trail.running.append(_Call(full, module, inputs))

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            del inputs
            # A module whose exception was caught further out is still on the chain: pass over it.
            while (call := trail.running.pop()).module is not module:
                pass
            if isinstance(output, Tensor) and output.ndim == 4:
                trail.last_map = (call.name, tuple(output.shape))

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield trail
    finally:
        for handle in handles:
            handle.remove()


def _explain(trail: _Trail, error: Exception) -> str:
    reason = one_line(error)
    if not trail.running:
        return reason
    call = trail.running[-1]
    where = f"layer '{call.name}' ({kind(call.module)})" if call.name else kind(call.module)
    given = call.inputs[0] if call.inputs else None
    if not isinstance(given, Tensor):
        return f"{where}: {reason}"
    shape = tuple(given.shape)
    if isinstance(call.module, nn.Linear) and shape[-1:] != (call.module.in_features,):
        return f"{where} {_linear_misfit(call.module, shape, trail)}"
    if isinstance(call.module, (nn.Conv2d, nn.BatchNorm2d, *_POOLS)):
        return f"{where} {_map_misfit(call.module, shape, reason)}"
    return f"{where} given {times(shape[1:])}: {reason}"


def _linear_misfit(layer: nn.Linear, given: tuple[int, ...], trail: _Trail) -> str:
    """Why a linear layer cannot take an input of shape `given` (with N)."""
    wants = f"takes {layer.in_features} features, but would get {given[-1]}"
    if len(given) > 2:
        return f"{wants}, the last dim of {times(given[1:])}: flatten it before"
    name, maps = trail.last_map
    if maps and prod(maps[1:]) == given[-1]:
        return f"{wants}, the {times(maps[1:])} that '{name}' gives"
    return wants


def _map_misfit(layer: nn.Module, given: tuple[int, ...], reason: str) -> str:
    """Why a layer that works on maps cannot take an input of shape `given` (with N)."""
    if len(given) != 4:
        return f"takes maps CxHxW, but would get {times(given[1:])}"
    channels = getattr(layer, "in_channels", getattr(layer, "num_features", given[1]))
    if given[1] != channels:
        return f"takes {channels} channels, but would get {given[1]} ({times(given[1:])})"
    if any(words in reason for words in _TOO_SMALL):
        return f"would get a {times(given[2:])} map"
    return f"given {times(given[1:])}: {reason}"


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
