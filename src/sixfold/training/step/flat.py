"""A network's state as flat vectors, so that sums, updates and checkpoints touch one tensor.

All trainable parameters are moved into one vector, of which they become views; the same is done
for the floating-point buffers (batch-norm's running statistics). The *payload* that shards
contribute to a step's sum is one vector too:

    [ gradient of every parameter | samples x every float buffer | samples x how far every
      integer buffer has moved | loss | right | samples | weight | wishes ]
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sixfold.core.errors import UserError
from sixfold.training.step.frozen import still_norms

ALIGNMENT_BYTES = 64
"""Parameters start at cache lines, as freshly allocated tensors do: kernels read them aligned."""

EXTRAS = 5
"""Loss, samples told right, samples, their weight, and wishes for another view, which so travel
with an exchange that happens anyway; at the end of the payload."""


@dataclass(frozen=True, kw_only=True)
class PayloadParts:
    """Views of a payload's sections.

    Attributes:
        gradients: one a parameter, in its shape.
        buffers: (Q,) samples times every float buffer.
        counters: (K,) samples times how far every integer buffer has moved.
        extras: (5,) loss, samples told right, samples, the sum of their weights, and wishes.
    """

    gradients: list[Tensor]
    buffers: Tensor
    counters: Tensor
    extras: NDArray[Any]


class FlatState:
    """Flat views of a network's parameters and buffers.

    Args:
        model: the network; its parameters and float buffers are moved into flat vectors, on the
            device on which they are.

    Attributes:
        parameters: (P,) all trainable parameters, each padded to a cache line with zeros.
        buffers: (Q,) all floating-point buffers but those that never move.
        still_norms: that keep their statistics; see `sixfold.training.step.frozen`.
        kept: tensors that keep their values: frozen parameters, and buffers of these norms.
        sections: lengths P, Q, K, 5 of the payload's parts, with K elements of integer buffers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self.still_norms = list(still_norms(model))
        still = {id(b) for norm in self.still_norms for b in norm.buffers()}
        self._buffers = [b for b in model.buffers() if b.is_floating_point() and id(b) not in still]
        # Complex ones are constants (`sixfold.models.conduct`) and stay where they are.
        self._counters = [
            b for b in model.buffers() if not (b.is_floating_point() or b.is_complex())
        ]
        frozen = [p for p in model.parameters() if not p.requires_grad]
        self.kept = [*frozen, *(b for b in model.buffers() if id(b) in still)]
        dtypes = {tensor.dtype for tensor in self._parameters}
        if len(dtypes) != 1:
            raise ValueError(f"parameters must share one dtype, found {sorted(map(str, dtypes))}")
        self.dtype = dtypes.pop()
        self.parameters, self._offsets = _flatten(
            [p.data for p in self._parameters], self.dtype, self._parameters[0].device
        )
        for parameter, view in zip(self._parameters, self.views(self.parameters), strict=True):
            parameter.data = view
        device = self.parameters.device
        self.buffers, offsets = _flatten(self._buffers, self.dtype, device)
        self._buffer_names = [
            n for n, b in model.named_buffers() if b.is_floating_point() and id(b) not in still
        ]
        self._buffer_offsets = offsets
        for (_, view), buffer in zip(self.named_buffers(self.buffers), self._buffers, strict=True):
            buffer.data = view
        for counter in self._counters:
            # One made by `expand` has fewer numbers in memory than elements to be written.
            counter.data = counter.data.contiguous()
        self._slots = _buffer_slots(model, [*self._buffers, *self._counters])
        counters = sum(counter.numel() for counter in self._counters)
        self._parts: dict[int, PayloadParts] = {}
        self.sections = [len(self.parameters), len(self.buffers), counters, EXTRAS]

    def train(self) -> None:
        """Put the network into the mode of training, as far as it is not frozen."""
        if not self.model.training:
            self.model.train()
        for norm in self.still_norms:
            norm.training = False

    @property
    def trainable(self) -> Sequence[nn.Parameter]:
        """The parameters, in the order of their places in the vector."""
        return self._parameters

    @property
    def places(self) -> list[tuple[str, int]]:
        """Name of every parameter, and where it begins in the vector."""
        return list(zip(self._names, self._offsets, strict=True))

    def split(self, payload: Tensor) -> tuple[Tensor, ...]:
        """The sections of a payload, as views: gradient, buffers, counters, extras."""
        parts: tuple[Tensor, ...] = torch.split(payload, self.sections)
        return parts

    def move_buffers(self, total: Tensor) -> None:
        """Move the buffers on by the sum of a step's payloads, which is overwritten."""
        _, after, moved, extras = self.split(total)
        samples = float(extras[2])
        after.div_(samples)
        if not torch.isfinite(after).all():
            # Numbers too large to be multiplied by samples, as masks hold, are constants.
            most = torch.finfo(self.dtype).max / samples
            after = torch.where(self.buffers.abs() > most, self.buffers, after)
        self.buffers.copy_(after)
        self.set_counters(self.counters() + moved.div_(samples).round_().long())

    @property
    def has_buffers(self) -> bool:
        """Whether there is anything that a forward pass may change."""
        return bool(self._buffers or self._counters)

    def parts(self, payload: Tensor) -> PayloadParts:
        """The sections of a payload to be written, as views; kept as long as the payload lives."""
        found = self._parts.get(id(payload))
        if found is None:
            # Views of an alias: a view keeps what it was taken of, and the payload is to be let go.
            gradient, buffers, counters, extras = self.split(payload.detach())
            found = PayloadParts(
                gradients=self.views(gradient),
                buffers=buffers,
                counters=counters,
                extras=extras.numpy(),
            )
            self._parts[id(payload)] = found
            weakref.finalize(payload, self._parts.pop, id(payload), None)
        return found

    def views(self, vector: Tensor) -> list[Tensor]:
        """Views of a (P,) vector in the shapes of the parameters."""
        return _views(vector, self._parameters, self._offsets)

    def named_views(self, vector: Tensor) -> list[tuple[str, Tensor]]:
        """`views`, each with the name of its parameter."""
        return list(zip(self._names, self.views(vector), strict=True))

    def named_buffers(self, vector: Tensor) -> list[tuple[str, Tensor]]:
        """Views of a (Q,) vector in the shapes of the float buffers, each with its name."""
        views = _views(vector, self._buffers, self._buffer_offsets)
        return list(zip(self._buffer_names, views, strict=True))

    def move_parameters(self, vector: Tensor) -> None:
        """Let the parameters live in another (P,) vector, such as one in shared memory."""
        vector.copy_(self.parameters)
        self.parameters = vector
        for parameter, view in zip(self._parameters, self.views(vector), strict=True):
            parameter.data = view

    def settle(self) -> None:
        """Move buffers that a forward has assigned anew back into the vector, with their values.

        Raises:
            UserError: if one has another shape or type than before.
        """
        moved: list[tuple[_BufferSlot, Tensor]] = []
        for slot in self._slots:
            now, kept = slot.module._buffers.get(slot.name), slot.buffer
            if now is kept and kept.data_ptr() == slot.home.data_ptr():
                continue
            if now is None or now.shape != slot.home.shape or now.dtype != slot.home.dtype:
                raise UserError(
                    f"the forward of {type(slot.module).__name__} removes the buffer "
                    f"'{slot.name}', or gives it another shape or type: keep them as they are"
                )
            moved.append((slot, now.detach().clone()))  # which may be another slot's buffer
        for slot, value in moved:
            slot.home.copy_(value)
            slot.buffer.data = slot.home
            slot.module._buffers[slot.name] = slot.buffer

    def check_places(self) -> None:
        """Make sure that every parameter is where updates are made.

        Raises:
            UserError: naming one that a forward has given other memory.
        """
        now = dict(self.model.named_parameters())
        for name, view in self.named_views(self.parameters):
            if name not in now or now[name].data_ptr() != view.data_ptr():
                raise UserError(
                    f"the network's forward gives the parameter '{name}' other memory (.data = "
                    "..., or a new Parameter), so it would never learn: compute with a changed "
                    "copy of it, or use torch.nn.utils.parametrize"
                )

    def counters(self) -> Tensor:
        """A copy of all integer buffers, such as batch-norm's number of batches: (K,) int64."""
        if not self._counters:
            return torch.empty(0, dtype=torch.int64, device=self.parameters.device)
        return torch.cat([counter.reshape(-1).long() for counter in self._counters])

    def set_counters(self, values: Tensor) -> None:
        """Put back what `counters` gave."""
        if self._counters:
            parts = torch.split(values, [counter.numel() for counter in self._counters])
            for counter, part in zip(self._counters, parts, strict=True):
                counter.copy_(part.view(counter.shape))


@dataclass(frozen=True)
class _BufferSlot:
    """Where a module holds a buffer, and the memory in which it is to stay."""

    module: nn.Module
    name: str
    buffer: Tensor
    home: Tensor


def _buffer_slots(model: nn.Module, buffers: Sequence[Tensor]) -> list[_BufferSlot]:
    known = {id(buffer) for buffer in buffers}
    return [
        _BufferSlot(module, name, buffer, buffer.data)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if id(buffer) in known and buffer is not None
    ]


def _flatten(
    tensors: Sequence[Tensor], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, list[int]]:
    """One vector that holds all tensors, and where each begins."""
    align = max(ALIGNMENT_BYTES // dtype.itemsize, 1)
    offsets, length = [], 0
    for tensor in tensors:
        offsets.append(length)
        length += -(-tensor.numel() // align) * align
    vector = torch.zeros(length, dtype=dtype, device=device)
    for view, tensor in zip(_views(vector, tensors, offsets), tensors, strict=True):
        view.copy_(tensor)
    return vector, offsets


def _views(vector: Tensor, like: Sequence[Tensor], offsets: Sequence[int]) -> list[Tensor]:
    return [
        vector[offset : offset + tensor.numel()].view(tensor.shape)
        for tensor, offset in zip(like, offsets, strict=True)
    ]
