"""A training step in two halves: forward keeps what backward needs, as named tensors.

What is kept is what the engine's own links keep (`sixfold.step.links`): the images, in the layout
in which they are computed with; of the max-pool where each maximum was, and whether ReLU let it
pass; the input of the linear layer; and the loss's gradient. Both halves call the kernels that a
step calls, so the gradient has the bits of `sixfold.step.step.Step`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sixfold.kernels.geometry import Array
from sixfold.lab.long_lived import CLASSES, network
from sixfold.lab.problem import Problem
from sixfold.native.max_pool import MaxPoolReLU2d
from sixfold.shards import shard_bounds, shard_count
from sixfold.step.chain import Chain
from sixfold.step.links import MaxPoolLink
from sixfold.step.step import Shard, Step, channels_last, cross_entropy

Kept = dict[str, Tensor]
"""Activations of a shard, by name."""


class Halves:
    """The network of a problem, run forward and backward at different times.

    Args:
        problem: images, and the convolution that the network begins with.

    Attributes:
        step: the same network as training has it.
        count: logical shards of the whole batch.
    """

    def __init__(self, problem: Problem) -> None:
        torch.manual_seed(problem.seed)
        model = network(problem.geometry).to(getattr(torch, problem.dtype))
        self.problem = problem
        self.step = Step(model, seed=problem.seed)
        self.count = shard_count(problem.geometry.batch)
        self._chain = Chain(self.step.model, self.step.state.trainable)
        pool = next(m for m in self.step.model.modules() if isinstance(m, MaxPoolReLU2d))
        self._chain.links = [
            _Pool(pool) if isinstance(link, MaxPoolLink) else link for link in self._chain.links
        ]

    @property
    def weights(self) -> Array:
        """(P,): the parameters, to be sent; see `sixfold.step.flat`."""
        vector: Array = self.step.state.parameters.numpy()
        return vector

    def load(self, weights: Array) -> None:
        """Take over parameters that were sent."""
        self.step.state.parameters.copy_(torch.from_numpy(weights))

    def shard(self, index: int) -> Shard:
        """The samples of a logical shard; labels are the images' numbers modulo the classes."""
        problem = self.problem
        first, last = shard_bounds(problem.geometry.batch, self.count, index)
        images = np.stack(
            [problem.images(n // problem.block)[n % problem.block] for n in range(first, last)]
        )
        labels = torch.arange(first, last) % CLASSES
        return Shard(index=index, images=torch.from_numpy(images), labels=labels)

    def forward(self, shard: Shard) -> Kept:
        """Forward and loss; what backward needs."""
        self.step.model.train()
        logits, saved = self._chain.forward(channels_last(shard.images))
        _, grad = cross_entropy(logits, shard.labels)
        kept: Kept = {"grad": grad}
        for place, values in enumerate(saved):
            for name, value in _named(values):
                kept[f"{place}.{name}"] = value
        return kept

    def backward(self, kept: Kept) -> Array:
        """(P,) gradient of the sum of the losses of a shard."""
        out = self.step.new_payload()
        saved = [
            _saved({name.split(".")[1]: v for name, v in kept.items() if name[0] == str(place)})
            for place in range(len(self._chain.links))
        ]
        self._chain.backward(saved, kept["grad"], self.step.state.parts(out).gradients)
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


def _named(saved: Any) -> list[tuple[str, Tensor]]:
    """What a link has kept, as named tensors."""
    if saved is None:
        return []
    if isinstance(saved, torch.Size):
        return [("shape", torch.tensor(saved))]
    if len(saved) == 3:
        shape, places, passed = saved
        found = [("shape", torch.tensor(shape)), ("places", _dense(places))]
        return found if passed is None else [*found, ("passed", _dense(passed))]
    x, wanted = saved
    return [("x", _dense(x)), ("wanted", torch.tensor([wanted]))]


def _saved(named: Kept) -> Any:
    """The same as the link had it."""
    if "x" in named:
        return _laid_out(named["x"]), bool(named["wanted"])
    shape = torch.Size(named["shape"].tolist())
    if "places" not in named:
        return shape
    passed = named.get("passed")
    return shape, _laid_out(named["places"]), None if passed is None else _laid_out(passed)


def _dense(tensor: Tensor) -> Tensor:
    """Its numbers in the order N H W C, in which they lie."""
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).contiguous()


def _laid_out(tensor: Tensor) -> Tensor:
    """The same as N C H W, in the same layout."""
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor
