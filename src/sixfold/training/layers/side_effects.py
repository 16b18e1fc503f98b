"""Reading a module's forward leaves the module as it was; what the forward itself changes is told.

A forward that is read runs, once, with stand-ins for tensors. If it remembers them in attributes,
changes buffers or draws random numbers, then a graph of its calls is not all that it does.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from sixfold.models.observe import changed, observe
from sixfold.models.outside import watched


class CannotFollowError(Exception):
    """Why a module is left to autograd."""


@contextmanager
def training(module: nn.Module) -> Iterator[None]:
    """While open, a module is in the mode of training; afterwards every part is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.train()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


_KEPT_BY_TORCH = ("_parameters", "training")


@dataclass
class _Attributes:
    """What a module holds besides weights, to be compared and put back."""

    module: nn.Module
    values: dict[str, Any] = field(init=False)
    contents: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        own = vars(self.module).items()
        self.values = {name: value for name, value in own if name not in _KEPT_BY_TORCH}
        containers = (list, dict, set)
        self.contents = {
            name: value.copy()
            for name, value in self.values.items()
            if isinstance(value, containers)
        }

    def restore(self) -> str | None:
        """Put everything back; the name of something that had changed."""
        other: str | None = None
        for name in list(vars(self.module)):
            if name in _KEPT_BY_TORCH:
                continue
            value = vars(self.module)[name]
            if name.startswith("_tensor_constant") and name not in self.values:
                del vars(self.module)[name]  # torch.fx's own
            elif name not in self.values:
                del vars(self.module)[name]
                other = name
            elif value is not self.values[name]:
                vars(self.module)[name] = self.values[name]
                other = name
        for name, content in self.contents.items():
            held = self.values[name]
            if len(held) != len(content) or any(
                a is not b for a, b in zip(_items(held), _items(content), strict=True)
            ):
                other = name if name != "_buffers" else _first_other(held, content)
                held.clear()
                held.extend(content) if isinstance(held, list) else held.update(content)
        return other


def _first_other(held: dict[str, Any], content: dict[str, Any]) -> str:
    names = [*content, *held]
    return next(name for name in names if held.get(name) is not content.get(name))


def _items(container: Any) -> list[Any]:
    if isinstance(container, dict):
        return [part for pair in container.items() for part in pair]
    return list(container)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Put back what reading a module has changed; a `CannotFollowError` if the forward did."""
    parts = [_Attributes(part) for part in module.modules()]
    modes = [(name, part, part.training) for name, part in module.named_modules()]
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in module.buffers()]
    states, before_all = _random_states(), observe(module)
    try:
        with watched() as asked:
            yield
    finally:
        names = [name for part in parts if (name := part.restore()) is not None]
        turned = [name for name, part, mode in modes if part.training != mode]
        moved = [buffer for buffer, version, _ in buffers if buffer._version != version]
        for buffer, version, before in buffers:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(before)
        drawn = not _are_same(states, _random_states())
        python, numpy, of_torch = states
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(of_torch)
    if names:
        raise CannotFollowError(f"its forward changes the attribute '{names[0]}'")
    if turned:
        raise CannotFollowError(f"its forward calls train() or eval() of '{turned[0]}'")
    place = changed(before_all, observe(module))
    if place is not None:
        raise CannotFollowError(f"its forward changes '{place}'")
    if asked:
        raise CannotFollowError(f"its forward calls {asked[0]}")
    if moved:
        raise CannotFollowError("its forward changes a buffer in place")
    if drawn:
        raise CannotFollowError("its forward draws random numbers by itself")


RandomStates = tuple[Any, Any, torch.Tensor]


def _random_states() -> RandomStates:
    """Of all generators that a user's network may draw from."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _are_same(one: RandomStates, other: RandomStates) -> bool:
    numpy = all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    return one[0] == other[0] and numpy and torch.equal(one[2], other[2])
