"""What passes between a network's layers, and which layer is to blame when it does not fit.

A network is run on the meta device, where tensors have shapes but no values: it costs
milliseconds and no memory whatever the size of the network. Hooks keep the chain of modules that
are running, so a failure is told with the innermost module's name, its kind and the sizes.

Legend: N batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Channels, rows and columns of one image."""

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d)


class MisfitError(ValueError):
    """A layer cannot take what reaches it. The message names the layer, its kind and the sizes."""


@dataclass(frozen=True)
class _Call:
    """A module that is running: its path in the network, itself and what it was given."""

    name: str
    module: nn.Module
    inputs: tuple[Any, ...]


def times(sizes: tuple[int, ...] | list[int] | torch.Size) -> str:
    """Sizes as people write them.

    >>> times((3, 32, 32))
    '3x32x32'
    """
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
    if isinstance(module, _NORMS):
        return f"{name} {module.num_features}"
    return name


def run(network: nn.Module, images: Tensor, *, name: str = "") -> Any:
    """The network's output for `images`, with every failure explained.

    Args:
        network: any module.
        images: (N, C, H, W), on the device of the network's parameters.
        name: the path under which `network` will be known, put before the names of its layers.

    Raises:
        MisfitError: if a layer cannot take what reaches it, or a `forward` raises.
    """
    with torch.no_grad(), _calls(network, name) as running:
        try:
            return network(images)
        except Exception as error:
            raise MisfitError(_explain(running[-1] if running else None, error)) from error


def output_shape(layers: nn.Module, shape: Shape, *, name: str = "features") -> tuple[int, ...]:
    """Shape of what `layers` make of one image, without N.

    Nothing is computed: the layers run on the meta device, in evaluation mode, and are left as
    they were. Random state is not touched.

    Args:
        layers: a module that takes images.
        shape: (C, H, W) of an image.
        name: the path under which `layers` will be known in the network.

    Raises:
        MisfitError: if the image is too small for them, or has the wrong channels.

    >>> output_shape(nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2)), (1, 28, 28))
    (20, 12, 12)
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
    """How many numbers `layers` make of one image: what the first linear layer takes.

    Args, raises: as for `output_shape`.

    >>> flat_features(nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2)), (1, 28, 28))
    2880
    """
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


@contextmanager
def _calls(network: nn.Module, name: str) -> Iterator[list[_Call]]:
    """The chain of modules that are running, outermost first, while the context is open."""
    running: list[_Call] = []
    handles = []
    prefix = (name,) if name else ()
    skipped = "layers" if isinstance(network, _Functional) else ""
    for path, module in network.named_modules():
        inner = path.removeprefix(skipped).removeprefix(".") if skipped else path
        full = ".".join((*prefix, inner) if inner else prefix)

        def enter(module: nn.Module, inputs: tuple[Any, ...], full: str = full) -> None:
            running.append(_Call(full, module, inputs))

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            del module, inputs, output
            running.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _explain(call: _Call | None, error: Exception) -> str:
    """One line: the layer, its kind and what it was given."""
    reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    if call is None:
        return reason
    where = f"layer '{call.name}' ({kind(call.module)})" if call.name else kind(call.module)
    given = call.inputs[0] if call.inputs else None
    if not isinstance(given, Tensor):
        return f"{where}: {reason}"
    return f"{where} {_misfit(call.module, tuple(given.shape), reason)}"


def _misfit(module: nn.Module, given: tuple[int, ...], reason: str) -> str:
    """What is wrong with an input of shape `given` (with N) for `module`."""
    if isinstance(module, nn.Linear):
        if given[-1:] != (module.in_features,):
            return f"takes {module.in_features} features, but would get {times(given[1:])}" + (
                "" if len(given) == 2 else ", whose last dim counts"
            )
    elif isinstance(module, (nn.Conv2d, *_POOLS, nn.BatchNorm2d)):
        channels = getattr(module, "in_channels", getattr(module, "num_features", None))
        if len(given) != 4:
            return f"takes maps CxHxW, but would get {times(given[1:])}"
        if channels is not None and given[1] != channels:
            return f"takes {channels} channels, but would get {given[1]} ({times(given[1:])})"
        if not isinstance(module, nn.BatchNorm2d):
            return f"would get a {times(given[2:])} map"
    return f"given {times(given[1:])}: {reason}"


def _pair(value: Any) -> tuple[int, int]:
    """A kernel's size for rows and columns."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
