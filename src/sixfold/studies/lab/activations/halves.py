"""A training step in two halves: forward keeps what backward needs, as named tensors.

What is kept is what layers with an explicit backward keep (`sixfold.training.layers.operations`):
of the slide network the images, in the layout in which they are computed with; of the max-pool
where each maximum was, and whether ReLU let it pass; the input of the linear layer; and the loss's
gradient. Both halves call the kernels that a step calls, so the gradient has the bits of
`sixfold.training.step.step.Step`.

The tensors are what is large. In which structure a layer keeps them is its own affair: the *frame*,
the same structure with names in the place of tensors, is small and travels with them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sixfold.core.errors import RunError
from sixfold.distributed.logical_shards import shard_count
from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.long_lived import network, shard_of
from sixfold.studies.lab.problem import Problem
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.layers.operations import MaxPoolOp, Run
from sixfold.training.native.max_pool import MaxPoolReLU2d
from sixfold.training.step.loss import cross_entropy
from sixfold.training.step.step import Shard, Step, channels_last

Tensors = dict[str, Tensor]
"""Activations of a shard, by name."""

Frame = list[Any]
"""What every link has kept, with a `_Name` in the place of each tensor."""


class _Name(NamedTuple):
    """Stands for a tensor."""

    name: str


class Halves:
    """The network of a problem, run forward and backward at different times."""

    def __init__(self, problem: Problem) -> None:
        torch.manual_seed(problem.seed)
        model = network(problem.geometry).to(getattr(torch, problem.dtype))
        self.problem = problem
        self.step = Step(model, seed=problem.seed)  # the same network as training has it
        self.count = shard_count(problem.geometry.batch)  # logical shards of the whole batch
        links = LayerExecutor(self.step.model, self.step.state.trainable).links
        pool = next(m for m in self.step.model.modules() if isinstance(m, MaxPoolReLU2d))
        # The own link asks autograd where the C kernel is missing, which cannot be sent on.
        self._run = Run([_Pool(pool) if isinstance(link, MaxPoolOp) else link for link in links])

    @property
    def weights(self) -> Array:
        """(P,): the parameters, to be sent; see `sixfold.training.step.flat`."""
        vector: Array = self.step.state.parameters.numpy()
        return vector

    def load(self, weights: Array) -> None:
        """Take over parameters that were sent."""
        self.step.state.parameters.copy_(torch.from_numpy(weights))

    def shard(self, index: int) -> Shard:
        """The samples of a logical shard."""
        return shard_of(self.problem, self.count, index)

    def forward(self, shard: Shard) -> tuple[Tensors, Frame]:
        """Forward and loss; what backward needs."""
        self.step.model.train()
        with torch.no_grad():
            logits, saved = self._run.forward(channels_last(shard.images), False)
        _, grad = cross_entropy(logits, shard.labels)
        tensors: Tensors = {"grad": grad}
        frame = [_taken_out(values, tensors) for values in saved]
        return tensors, frame

    def backward(self, tensors: Tensors, frame: Frame) -> Array:
        """(P,) gradient of the sum of the losses of a shard."""
        out = self.step.new_payload()
        saved = [_put_back(values, tensors) for values in frame]
        with torch.no_grad():
            gradients = self.step.state.parts(out).gradients
            self._run.backward(saved, tensors["grad"], gradients, False)
        gradient: Array = self.step.state.split(out)[0].numpy()
        return gradient


@functools.lru_cache(maxsize=2)
def halves_of(problem: Problem) -> Halves:
    """The network of a problem, built once in a process."""
    return Halves(problem)


class _Pool:
    """Max-pool with ReLU behind it whose places are a tensor, with or without the C kernel."""

    has_weights = False

    def __init__(self, layer: MaxPoolReLU2d) -> None:
        self._layer = layer

    def forward(self, x: Tensor, _: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, C, H', W')."""
        layer = self._layer
        y, places = nn.functional.max_pool2d(
            x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, return_indices=True
        )
        y = y.relu() if layer.relu else y
        return y, (x.shape, places.int(), y > 0 if layer.relu else None)

    def backward(self, saved: Any, grad: Tensor, _: Sequence[Tensor]) -> Tensor | None:
        """(n, C, H', W') -> (n, C, H, W)."""
        shape, places, passed = saved
        layer = self._layer
        if passed is not None:
            grad = grad * passed
        like = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last)
        settings = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        pairs = [[s, s] if isinstance(s, int) else list(s) for s in settings]
        back: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            grad.contiguous(memory_format=torch.channels_last), like, *pairs, False, places.long()
        )
        return back


def _taken_out(value: Any, tensors: Tensors) -> Any:
    """A link's structure with names for its tensors, which are added to `tensors`."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise RunError("a layer keeps a graph of autograd, which only its own process can use")
        name = f"t{len(tensors)}"
        tensors[name] = _dense(value.detach())
        return _Name(name)
    return _rebuilt(value, lambda part: _taken_out(part, tensors))


def _put_back(value: Any, tensors: Tensors) -> Any:
    """The structure as the link had it."""
    if isinstance(value, _Name):
        return _laid_out(tensors[value.name])
    return _rebuilt(value, lambda part: _put_back(part, tensors))


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tuple, list or dataclass with every part changed; anything else as it is."""
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    if isinstance(value, tuple | list):
        return type(value)(map(change, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: change(part) for name, part in parts.items()})
    return value


def _dense(tensor: Tensor) -> Tensor:
    """Its numbers in the order N H W C, in which they lie."""
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).contiguous()


def _laid_out(tensor: Tensor) -> Tensor:
    """The same as N C H W, in the same layout."""
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor
