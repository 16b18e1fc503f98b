"""A network as a chain of links, run forward and backward without a graph in between.

autograd records every operation, allocates every gradient, and copies it to where it is wanted:
for a few images that costs more than the arithmetic. Most networks are a plain sequence, whose
backward pass is the same sequence the other way round. Here each layer is a link that calls the
same kernels of torch directly and writes its weights' gradients into the payload. Whatever is no
such layer becomes a link that asks autograd; a network that is no sequence is one such link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.native.max_pool import MaxPoolReLU2d
from sixfold.step.links import (
    AutogradLink,
    ConvLink,
    FlattenLink,
    LinearLink,
    Link,
    MaxPoolLink,
    ReLULink,
    Weight,
)
from sixfold.step.rewrites import has_hooks

Parameters = Sequence[nn.Parameter]


class Chain:
    """Computes a network's values and the gradients of its weights.

    Args:
        model: the network.
        parameters: its trainable parameters, in the order in which gradients are wanted.
        whole: leave the whole network to autograd.
        narrow: the parameters in fewer bits, with which layers compute; see
            `sixfold.step.precision`.

    Attributes:
        links: what is run, in order.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Parameters,
        *,
        whole: bool = False,
        narrow: Sequence[Tensor] | None = None,
    ) -> None:
        leaves = None if whole else _leaves(model)
        weights = _Weights(parameters, narrow)
        self.links = _link_up(leaves, weights) if leaves else []
        if not self.links:
            self.links = [weights.autograd_link(model)]
        with_weights = [place for place, link in enumerate(self.links) if link.has_weights]
        self._first = with_weights[0] if with_weights else len(self.links)

    @property
    def needs_autograd(self) -> bool:
        """Whether there is a module of which only autograd knows what it does."""
        return any(isinstance(link, AutogradLink) for link in self.links)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        """Run the network in its current mode.

        Args:
            x: (n, C, H, W) images.

        Returns:
            Its output, and what `backward` needs.
        """
        saved: list[Any] = []
        with torch.no_grad():
            for place, link in enumerate(self.links):
                x, kept = link.forward(x, place > self._first)
                saved.append(kept)
        return x, saved

    def backward(self, saved: list[Any], grad: Tensor, out: Sequence[Tensor]) -> None:
        """Write the gradient of every parameter.

        Args:
            saved: from `forward`; consumed.
            grad: gradient with respect to the output.
            out: one tensor a parameter, in its shape; overwritten, with zeros where the output
                does not depend on it.
        """
        flowing: Tensor | None = grad
        with torch.no_grad():
            for place in range(len(self.links) - 1, self._first - 1, -1):
                assert flowing is not None
                flowing = self.links[place].backward(saved.pop(), flowing, out)


def _leaves(model: nn.Module) -> list[nn.Module] | None:
    """The layers of nested plain sequences, in order; None if the network is none."""
    if type(model) is not nn.Sequential or has_hooks(model):
        return None
    found: list[nn.Module] = []
    for child in model:
        inner = _leaves(child)
        found += [child] if inner is None else inner
    return found


class _Weights:
    """The trainable parameters, by their places among all, and their narrow copies."""

    def __init__(self, parameters: Parameters, narrow: Sequence[Tensor] | None) -> None:
        self._places = {id(parameter): place for place, parameter in enumerate(parameters)}
        self._narrow = narrow

    def __len__(self) -> int:
        return len(self._places)

    def owned(self, module: nn.Module) -> list[tuple[int, nn.Parameter]]:
        """The parameters of a module, with their places."""
        return [(self._places[id(p)], p) for p in module.parameters() if id(p) in self._places]

    def all_trained(self, module: nn.Module) -> bool:
        """Whether none of its weights is frozen."""
        return all(id(p) in self._places for p in module.parameters())

    def weight(self, parameter: nn.Parameter) -> Weight:
        """What a link computes with, and where its gradient goes."""
        place = self._places[id(parameter)]
        return Weight(place, parameter if self._narrow is None else self._narrow[place])

    def autograd_link(self, module: nn.Module) -> AutogradLink:
        """A module left to autograd."""
        dtype = None if self._narrow is None else self._narrow[0].dtype
        return AutogradLink(module, self.owned(module), narrow=dtype)


def _link_up(leaves: list[nn.Module], weights: _Weights) -> list[Link]:
    """A link for every layer; none at all if layers share weights, whose gradients must add."""
    owned = [place for leaf in leaves for place, _ in weights.owned(leaf)]
    if len(owned) != len(set(owned)) or len(owned) != len(weights):
        return []
    links: list[Link] = []
    for group in _groups(leaves):
        link = _own_link(group[0], weights) if len(group) == 1 else None
        module = group[0] if len(group) == 1 else nn.Sequential(*group)
        links.append(link or weights.autograd_link(module))
    return links


def _groups(leaves: list[nn.Module]) -> Iterator[list[nn.Module]]:
    """Each layer that has a link of its own by itself, and the runs of others between them."""
    others: list[nn.Module] = []
    for leaf in leaves:
        if type(leaf) is nn.Identity and not has_hooks(leaf):
            continue
        if type(leaf) in _MAKERS and not has_hooks(leaf):
            if others:
                yield others
            yield [leaf]
            others = []
        else:
            others.append(leaf)
    if others:
        yield others


def _own_link(leaf: nn.Module, weights: _Weights) -> Link | None:
    """A layer's own link; None if it has none, or some of its weights are frozen."""
    make = _MAKERS.get(type(leaf))
    if make is None or has_hooks(leaf) or not weights.all_trained(leaf):
        return None
    return make(leaf, weights)


def _conv(leaf: Any, weights: _Weights) -> Link | None:
    if leaf.padding_mode != "zeros" or isinstance(leaf.padding, str):
        return None
    return ConvLink(leaf, *_weight_and_bias(leaf, weights))


def _linear(leaf: Any, weights: _Weights) -> Link:
    return LinearLink(*_weight_and_bias(leaf, weights))


def _weight_and_bias(leaf: Any, weights: _Weights) -> tuple[Weight, Weight | None]:
    return weights.weight(leaf.weight), None if leaf.bias is None else weights.weight(leaf.bias)


_MAKERS: dict[type[nn.Module], Callable[[Any, _Weights], Link | None]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.Flatten: lambda leaf, _weights: FlattenLink(leaf),
    nn.ReLU: lambda _leaf, _weights: ReLULink(),
    MaxPoolReLU2d: lambda leaf, _weights: MaxPoolLink(leaf),
}
