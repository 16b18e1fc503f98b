"""Sees every call of a torch function while a network runs, and counts what it costs."""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from sixfold.models.graph.flops import count
from sixfold.models.graph.operations import (
    MOVE,
    PASS,
    PRODUCT,
    RESHAPE,
    operation_named,
    operation_of,
    plain_name,
)
from sixfold.perf.profile.cost import SUM_OF_GRADIENTS, FunctionCost, LayerCost, sums_of
from sixfold.perf.profile.scopes import Scopes, tensors_in


@dataclass
class _Open:
    name: str
    kind: str
    parameters: list[Tensor] = field(default_factory=list)
    functions: list[FunctionCost] = field(default_factory=list)

    def closed(self) -> LayerCost:
        return LayerCost(
            name=self.name,
            kind=self.kind,
            parameters=sum(p.numel() for p in self.parameters),
            parameter_bytes=sum(_bytes(p) for p in self.parameters),
            functions=tuple(self.functions),
            **sums_of(self.functions),
        )


class Recorder(TorchFunctionMode):
    """Sees every call of a torch function while it is entered.

    `trainable` are ids of the tensors that stand for trainable parameters, `own` storages of all
    parameters and buffers, which are there whether kept or not; `last`: images lie as N H W C.
    """

    def __init__(self, trainable: set[int], own: set[int], device: str, *, last: bool) -> None:
        super().__init__()
        self._trainable, self._is_laid_last = trainable, last and device == "meta"
        self._done: list[LayerCost] = []
        self._open: _Open | None = None
        self.scopes = Scopes(self)  # which layer is running; to be told by `followed`
        self._alive: list[Tensor] = []
        self._kept = set(own)
        self._used: set[int] = set()
        self._counted: set[int] = set()

    def finished(self) -> tuple[LayerCost, ...]:
        """All layers, in order; those that moved and computed nothing are left out."""
        return tuple(cost for cost in self._done if cost.functions)

    def opened(self, name: str, kind: str) -> None:
        """A layer has begun; functions belong to it from now on."""
        self._open = _Open(name, kind)

    def made(self, output: Any) -> None:
        """Outputs are seen where functions give them."""

    def closed(self, module: nn.Module | None) -> None:
        """The layer has ended."""
        assert self._open is not None
        if module is not None and self._open.functions:
            self._open.functions = _as_one(module, self._open.functions)
        self._done.append(self._open.closed())
        self._open = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        kept: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        products = FlopCounterMode(display=False)
        inputs = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
        versions = [t._version for t in inputs]
        unknown = _is_unknown(plain_name(func), args, kwargs, inputs)
        watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with watched, products if unknown else nullcontext():
            result = func(*args, **kwargs)
        outputs = [t for t in tensors_in((result,)) if t.is_floating_point()]
        if not outputs or not inputs:
            return result
        in_place = any(t._version != v for t, v in zip(inputs, versions, strict=True))
        if self._is_laid_last and plain_name(func) == "conv2d":
            # As on the CPU: images laid out N H W C give maps that are laid out so.
            result = outputs[0] = result.contiguous(memory_format=torch.channels_last)
        inner = products.get_total_flops() if unknown else 0
        self._add(func, args, kwargs, inputs, outputs, kept, inner, in_place=in_place)
        return result

    def _add(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
        kept: list[Tensor],
        inner: int,
        *,
        in_place: bool,
    ) -> None:
        name = plain_name(func)
        traffic = _traffic(name)
        self._alive += [*inputs, *outputs, *kept]
        storages = {storage_of(t) for t in inputs}
        is_view = not in_place and traffic != PRODUCT and storage_of(outputs[0]) in storages
        if is_view and self._open is None:
            return
        weights = [t for t in inputs if id(t) in self._trainable]
        flowing = [t for t in inputs if t.requires_grad and id(t) not in self._trainable]
        made = 0 if is_view else sum(_bytes(t) for t in outputs)
        flops = (0, 0) if is_view else count(name, _named(args, kwargs), inputs, outputs[0])
        known = flops is not None
        forward, backward = flops or (_size(outputs) + inner, _size(outputs) + 2 * inner)
        wanted = any(t.requires_grad for t in outputs)
        if traffic == PRODUCT:
            backward *= sum(t.requires_grad for t in inputs[:2])
        again = [t for t in flowing if id(t) in self._used] if not is_view else []
        self._used |= {id(t) for t in flowing if not is_view}
        backward_bytes = 0
        if wanted and not is_view:
            backward_bytes = _backward_bytes(name, inputs, outputs, kept, weights, flowing)
        cost = FunctionCost(
            name=name,
            known=known,
            input_shapes=tuple(tuple(t.shape) for t in inputs if id(t) not in self._trainable),
            output_shape=tuple(outputs[0].shape),
            forward_flops=forward,
            backward_flops=backward if wanted else 0,
            forward_bytes=0 if is_view else sum(map(_bytes, inputs)) + made,
            backward_bytes=backward_bytes,
            kept_bytes=self._newly_kept(kept),
            output_bytes=0 if in_place else made,
        )
        costs = [cost, *map(_sum_of_gradients, again)]
        if self._open is not None:
            self._open.functions += costs
            self._open.parameters += self._newly_used(weights)
            return
        record = _Open(self.scopes.outside(name), name, self._newly_used(weights), costs)
        self._done.append(record.closed())

    def _newly_kept(self, kept: list[Tensor]) -> int:
        """Bytes of what is kept for the backward pass and was not kept already."""
        found = 0
        for tensor in kept:
            storage = storage_of(tensor)
            if storage not in self._kept:
                self._kept.add(storage)
                found += _bytes(tensor)
        return found

    def _newly_used(self, weights: list[Tensor]) -> list[Tensor]:
        new = [t for t in weights if id(t) not in self._counted]
        self._counted |= {id(t) for t in weights}
        return new


def _traffic(name: str) -> str:
    row = operation_named(name)
    return "" if row is None else row.traffic


def _as_one(module: nn.Module, functions: list[FunctionCost]) -> list[FunctionCost]:
    """One operation in the place of the functions that a module calls, where its row counts so.

    That is a module with a kernel of its own, or a user's whose row says what it costs.
    """
    row = operation_of(module)
    if row is None or type(module).__module__.startswith("torch."):
        return functions
    saved = row.saved_bytes(module)
    own = isinstance(row.flops, tuple)
    if saved is None and not own:
        return functions
    calls = [f for f in functions if f.name != SUM_OF_GRADIENTS]
    first, last = calls[0], calls[-1]
    size = prod(last.output_shape)
    output = size * first.output_bytes // max(prod(first.output_shape), 1)
    given = first.forward_bytes - first.output_bytes
    wanted = any(f.backward_bytes or f.backward_flops for f in calls)
    flops = sum(f.forward_flops for f in calls), sum(f.backward_flops for f in calls[:1])
    if isinstance(row.flops, tuple):
        flops = row.flops[0] * size, row.flops[1] * size
    kept = sum(f.kept_bytes for f in calls) if saved is None else saved * size
    one = FunctionCost(
        name=row.name,
        known=True,
        input_shapes=first.input_shapes,
        output_shape=last.output_shape,
        forward_flops=flops[0],
        backward_flops=flops[1] if wanted else 0,
        forward_bytes=given + output + (saved or 0) * size,
        backward_bytes=(output + kept + given) if wanted else 0,
        kept_bytes=kept if wanted else 0,
        output_bytes=output,
    )
    # Sums at the first function are for what other layers have taken; later ones are its own.
    sums = itertools.takewhile(lambda f: f.name == SUM_OF_GRADIENTS, functions[1:])
    return [one, *sums]


def _sum_of_gradients(tensor: Tensor) -> FunctionCost:
    """What it costs that one more call takes a tensor: its gradients are added."""
    shape = tuple(tensor.shape)
    return FunctionCost(
        name=SUM_OF_GRADIENTS,
        known=True,
        input_shapes=(shape,),
        output_shape=shape,
        backward_flops=tensor.numel(),
        backward_bytes=3 * _bytes(tensor),
    )


def _is_unknown(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
) -> bool:
    """Whether a function must be looked into, since there is no formula for it."""
    if not inputs:
        return False
    try:
        return count(name, _named(args, kwargs), inputs, inputs[0]) is None
    except (TypeError, ValueError, IndexError, AttributeError):
        return False


def _backward_bytes(
    name: str,
    inputs: list[Tensor],
    outputs: list[Tensor],
    kept: list[Tensor],
    weights: list[Tensor],
    flowing: list[Tensor],
) -> int:
    """Least bytes of a call's backward pass."""
    gradients = sum(map(_bytes, weights))
    traffic = _traffic(name)
    if traffic in (PASS, RESHAPE):
        return gradients
    read = sum(map(_bytes, outputs))
    if traffic != MOVE:
        own = {storage_of(weight) for weight in weights}
        taken = {storage_of(t): t for t in kept if storage_of(t) not in own}
        read += sum(map(_bytes, taken.values()))
        if flowing and (traffic == PRODUCT or "norm" in name):
            read += gradients
    written = sum(_bytes(t) for t in inputs if any(t is other for other in flowing))
    return read + written + gradients


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**{str(place): value for place, value in enumerate(args)}, **kwargs}


def storage_of(tensor: Tensor) -> int:
    """A number of the memory that a tensor lies in."""
    number: int = tensor.untyped_storage()._cdata
    return number


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _size(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
