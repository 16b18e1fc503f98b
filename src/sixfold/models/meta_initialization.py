"""A network without memory, and the initial values of any part of its parameters.

The network is built on the meta device, where parameters have shapes but no values, while what
the factory does to them is recorded: which is filled, in which order, by which rule. Played back,
the record gives the values that `build` gives, bit for bit, a few megabytes at a time, and only
what is asked for is kept. So a process that holds a part of a network never holds the whole.

A factory that sets its weights in a way that the record cannot tell (reads them, copies them from
elsewhere, or initialises orthogonally) is played back by building the whole network once.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from sixfold.core.errors import UserError
from sixfold.models.building import build, seeded
from sixfold.models.config import ModelConfig
from sixfold.models.factory import model_factory
from sixfold.models.shapes import Shape, ShapeMismatchError, times

Cut = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""A shape in which a parameter is seen, and for each of its dims the interval that is wanted."""

CHUNK_ELEMENTS = 1 << 18  # Values that are drawn at a time: a megabyte
DRAW_GRAIN = 16
"""torch draws normal values in blocks of 16, the last of them once more if it is short
(ATen/native/cpu/DistributionTemplates.h, normal_fill); uniform values one by one."""


@dataclass(frozen=True)
class Fill:
    """One thing done to all values of one tensor."""

    storage: int  # which tensor, by the number of its memory
    shape: tuple[int, ...]  # of the tensor
    operation: str  # name of the in-place method, such as "normal_"
    arguments: tuple[Any, ...]  # the method's

    @property
    def is_random(self) -> bool:
        """Whether it draws numbers."""
        return self.operation in _RANDOM


@dataclass(frozen=True)
class MetaModel:
    """A network on the meta device, and how its values come about."""

    network: nn.Module  # parameters and buffers without values, as float32
    # everything done to the values, in order; None if that could not be recorded
    fills: tuple[Fill, ...] | None


_RANDOM = {"uniform_", "normal_"}
_CONSTANT = {"zero_", "fill_"}
_SCALED = {"mul_", "add_", "div_", "sub_", "clamp_", "erfinv_"}
_CREATED = {
    "aten::empty": None,
    "aten::zeros": "zero_",
    "aten::ones": "fill_",
    "aten::full": "fill_",
}
_SILENT_ON_META: set[CodeType] = {
    function.__code__
    for function in (nn.init.trunc_normal_, nn.init.orthogonal_, nn.init.dirac_, nn.init.sparse_)
}
"""These leave a tensor on the meta device as it is, so the record would miss them."""


def build_on_meta(config: ModelConfig, *, shape: Shape, classes: int, seed: int) -> MetaModel:
    """The network of `build` on the meta device."""
    chosen = model_factory(config, shape=shape, classes=classes)
    recorder = _Recorder()
    with seeded(seed), torch.device("meta"), _watched(recorder), recorder:
        try:
            network = chosen.make()
        except ShapeMismatchError as error:
            raise UserError(f"{config.model} cannot take {times(shape)} images: {error}") from error
        except UserError as error:
            raise UserError(
                f"{error}; divided networks are built without values (on the meta device): divide "
                "the batch instead (--strategy sync)"
            ) from error
    tensors = [*network.parameters(), *network.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        raise UserError(
            f"{config.model}: lazy layers cannot be divided: give them their sizes, or divide the "
            "batch instead (--strategy sync)"
        )
    known = recorder.faithful and all(_storage(tensor) in recorder.known for tensor in tensors)
    return MetaModel(network, tuple(recorder.fills) if known else None)


def initial_parts(
    found: MetaModel,
    config: ModelConfig,
    cuts: Mapping[str, Cut],
    *,
    shape: Shape,
    classes: int,
    seed: int,
) -> dict[str, Tensor]:
    """Parts of the values that `build` would give, by the record of `build_on_meta`."""
    if found.fills is None:
        whole = build(config, shape=shape, classes=classes, seed=seed).state_dict()
        return {name: cut_out(whole[name], cut).clone() for name, cut in cuts.items()}
    tensors = dict(found.network.state_dict(keep_vars=True))
    parts = {
        name: torch.empty(_sizes(cut), dtype=tensors[name].dtype) for name, cut in cuts.items()
    }
    by_storage: dict[int, list[str]] = {}
    for name in cuts:
        by_storage.setdefault(_storage(tensors[name]), []).append(name)
    # A fill whose values are all replaced later matters only for what it draws.
    with seeded(seed), torch.no_grad(), torch.device("cpu"):
        for fill in found.fills:
            names = by_storage.get(fill.storage, [])
            if fill.is_random:
                _draw(fill, [(parts[name], cuts[name]) for name in names])
            else:
                for name in names:
                    getattr(parts[name], fill.operation)(*fill.arguments)
    return parts


def _draw(fill: Fill, wanted: list[tuple[Tensor, Cut]]) -> None:
    """Draw a whole tensor's values, a chunk after the other, and keep what is wanted."""
    for first, values in _chunks(fill):
        for part, cut in wanted:
            view, box = (cut[0] or (1,)), (cut[1] or ((0, 1),))
            part = part if part.dim() else part[None]
            inner = prod(view[1:])
            start, rows = first // inner, len(values) // inner
            low, high = max(box[0][0], start), min(box[0][1], start + rows)
            if low >= high:
                continue
            held = values.view(rows, *view[1:])[low - start : high - start]
            for dim, (a, b) in enumerate(box[1:], start=1):
                held = held.narrow(dim, a, b - a)
            part[low - box[0][0] : high - box[0][0]].copy_(held)


def _chunks(fill: Fill) -> Iterator[tuple[int, Tensor]]:
    """(number of the first value, values) of whole rows, in the order in which torch draws them."""
    total = prod(fill.shape)
    row = prod(fill.shape[1:])
    grain = row * DRAW_GRAIN
    size = max(CHUNK_ELEMENTS // max(grain, 1), 1) * grain
    start = 0
    while start < total:
        rest = total - start
        count = rest if rest < size + grain else size
        values = torch.empty(count)
        yield start, getattr(values, fill.operation)(*fill.arguments)
        start += count


def cut_out(value: Tensor, cut: Cut) -> Tensor:
    """A view of a cut's part of a whole tensor."""
    view, box = cut
    value = value.reshape(view)
    for dim, (start, stop) in enumerate(box):
        value = value.narrow(dim, start, stop - start)
    return value


def _sizes(cut: Cut) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in cut[1])


def _storage(tensor: Tensor) -> int:
    number: int = tensor.untyped_storage()._cdata
    return number


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fills: list[Fill] = []  # in order
        # number of a storage -> the storage, of all tensors whose values are known. Kept alive, so
        # that no later tensor gets the same number
        self.known: dict[int, Any] = {}
        self.faithful = True  # whether everything could be recorded

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        operation = name.removeprefix("aten::")
        if name in _CREATED:
            self._created(name, args, result)
        elif operation in _RANDOM | _CONSTANT | _SCALED:
            self._filled(operation, args, kwargs or {})
        elif func._schema.is_mutable or torch.Tag.nondeterministic_seeded in func.tags:
            self.faithful = False
        return result

    def _created(self, name: str, args: tuple[Any, ...], result: Tensor) -> None:
        self.known[_storage(result)] = result.untyped_storage()
        operation = _CREATED[name]
        if operation is not None:
            value = {"aten::ones": (1,), "aten::full": tuple(args[1:2])}.get(name, ())
            self.fills.append(Fill(_storage(result), tuple(result.shape), operation, value))

    def _filled(self, operation: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor, *arguments = args
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        plain = all(isinstance(value, (int, float)) for value in arguments)
        random_kind = operation not in _RANDOM or tensor.dtype == torch.float32
        if named or not (whole and plain and random_kind and tensor.is_contiguous()):
            self.faithful = False
        fill = Fill(_storage(tensor), tuple(tensor.shape), operation, tuple(arguments))
        self.fills.append(fill)
        if operation not in _SCALED:
            self.known[_storage(tensor)] = tensor.untyped_storage()


@contextmanager
def _watched(recorder: _Recorder) -> Iterator[None]:
    """While open, notice calls of functions that do nothing on the meta device."""
    before = sys.getprofile()

    def watch(frame: FrameType, event: Any, argument: Any) -> None:
        if event == "call" and frame.f_code in _SILENT_ON_META:
            recorder.faithful = False
        if before is not None:
            before(frame, event, argument)

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
