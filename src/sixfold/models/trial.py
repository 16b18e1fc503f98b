"""Runs of one network, each from the same weights and buffers, and what each has done to them."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sixfold.models.building import seed_all
from sixfold.models.outputs import main_output
from sixfold.models.outside import watched

_CONSTRAINT = (
    "which every shard and worker would do once more: compute with a changed copy, as "
    "F.linear(x, torch.renorm(self.weight, ...)) does, put the constraint into "
    "torch.nn.utils.parametrize.register_parametrization, or, if it is not trained, keep it with "
    "register_buffer"
)


@dataclass(frozen=True)
class _Slot:
    """A registered tensor: who holds it, under which name, and how it was at the beginning."""

    module: nn.Module
    path: str
    name: str
    is_parameter: bool
    tensor: Tensor
    alias: Tensor
    before: Tensor
    is_trained: bool

    def put_back(self) -> str | None:
        """Let the tensor be as it was; what was done to it that cannot be trained."""
        store = self.module._parameters if self.is_parameter else self.module._buffers
        now = store.get(self.name)
        store[self.name] = self.tensor  # type: ignore[assignment]
        moved = now is not self.tensor or _storage(self.tensor) != _storage(self.alias)
        where = f"the {'parameter' if self.is_parameter else 'buffer'} '{self.path}'"
        if now is None:
            return f"removes {where}, which can only be done before training"
        if now.shape != self.before.shape or now.dtype != self.before.dtype:
            self._copy_back()
            return f"gives {where} another shape or type, which has to stay the same"
        differs = not now.is_meta and not same_bits(now, self.before)
        if differs or moved:
            self._copy_back()
        if self.is_parameter and (differs or moved):
            return f"changes {where}, {_CONSTRAINT}"
        if self.is_parameter and now.requires_grad != self.is_trained:
            self.tensor.requires_grad_(self.is_trained)
            return (
                f"changes requires_grad of {where}: what is trained is settled before the first "
                "step; use --freeze, and --unfreeze PATTERN=EPOCH"
            )
        if differs and now.is_complex():
            return f"changes {where}, which is complex: keep real and imaginary part as two buffers"
        return None

    def _copy_back(self) -> None:
        with torch.no_grad():
            self.tensor.data = self.alias
            if not same_bits(self.tensor, self.before):
                try:
                    self.alias.copy_(self.before)  # Others may look into this memory
                except RuntimeError:  # one made by `expand`
                    self.tensor.data = self.before.clone()


class Trial:
    """Runs of one network, each from the same weights and buffers.

    Attributes:
        network: what is run.
        broken: the first thing done that cannot be trained, in words that follow "its forward".
        asked: what was asked of the world outside.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._slots = [
            _Slot(
                module,
                f"{path}.{name}" if path else name,
                name,
                store is module._parameters,
                tensor,
                tensor.data,
                tensor.detach().clone(),
                tensor.requires_grad,
            )
            for path, module in network.named_modules()
            for store in (module._parameters, module._buffers)
            for name, tensor in store.items()
            if tensor is not None
        ]
        self._names = {slot.path for slot in self._slots}
        self.broken: str | None = None
        self.asked: list[str] = []

    def run(self, images: Tensor, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's output, and how far each of its buffers has moved."""
        output = self._forward(images, seed).detach().clone()
        moves = {
            slot.path: now.detach().double() - slot.before.double()
            for slot in self._slots
            if not slot.is_parameter and (now := slot.module._buffers.get(slot.name)) is not None
            if now.shape == slot.before.shape and not now.is_complex()
        }
        self.restore()
        return output, moves

    def gradients(self, images: Tensor, scale: float = 1.0) -> list[Tensor] | None:
        """Those of all parameters, for an incoming gradient that is multiplied by `scale`.

        None if the output depends on no parameter.
        """
        output = self._forward(images, 1)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        found: Sequence[Tensor | None] | None = None
        if output.requires_grad:
            with watched() as asked:
                towards = torch.linspace(-scale, scale, output.numel()).view(output.shape)
                found = torch.autograd.grad(
                    output, trained, towards.to(output.dtype), allow_unused=True
                )
            self.asked = self.asked or asked
        self.restore()
        if found is None:
            return None
        dense = [g.to_dense() if g.layout != torch.strided else g for g in found if g is not None]
        return [torch.view_as_real(g) if g.is_complex() else g for g in dense]

    def is_saved(self, name: str) -> bool:
        """Whether a buffer is among the weights that are saved."""
        slot = next(slot for slot in self._slots if slot.path == name)
        return name.rpartition(".")[2] not in slot.module._non_persistent_buffers_set

    def written(self, images: Tensor) -> str | None:
        """The parameter into whose memory a forward writes, even if what is there already."""
        places = {_storage(slot.tensor)[0]: slot.path for slot in self._slots if slot.is_parameter}
        try:
            with _Writes(places) as writes:
                self._forward(images, 1)
        except Exception:  # it cannot be run while it is watched
            return None
        finally:
            self.restore()
        if not writes.storages:
            return None
        return f"changes the parameter '{places[writes.storages[0]]}', {_CONSTRAINT}"

    def restore(self) -> None:
        """Let weights and buffers be as they were, and see what was done to them."""
        found = [slot.put_back() for slot in self._slots]
        registered = chain(self.network.named_parameters(), self.network.named_buffers())
        new = [name for name, _ in registered if name not in self._names]
        found += [f"registers '{name}', which has to be there before training" for name in new]
        self.broken = self.broken or next(filter(None, found), None)

    def _forward(self, images: Tensor, seed: int) -> Tensor:
        seed_all(seed)
        with (
            watched() as asked,
            torch.set_grad_enabled(self.network.training),
            modes_kept() as changed,
        ):
            output: Tensor = main_output(self.network(images.clone()))
        self.asked = self.asked or asked
        if changed:
            self.broken = self.broken or (
                f"leaves {changed[0]} changed for all that comes after it: use it as `with ...`, "
                "or set it once in your script"
            )
        return output


def _matmul_precision() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set for each backend by itself
        return None


def _set_matmul_precision(precision: str | None) -> None:
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


def _flushes_denormals() -> bool:
    return not torch.tensor(1e-310, dtype=torch.float64, device="cpu").mul(0.5).item()


def _set_onednn(enabled: bool) -> None:
    setattr(torch.backends.mkldnn, "enabled", enabled)  # noqa: B010 - torch types it as no bool


_MODES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.use_deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch.set_float32_matmul_precision": (_matmul_precision, _set_matmul_precision),
    "torch.set_flush_denormal": (_flushes_denormals, torch.set_flush_denormal),
    "torch.backends.mkldnn.enabled": (lambda: torch.backends.mkldnn.enabled, _set_onednn),
    "torch.autocast": (
        partial(torch.is_autocast_enabled, "cpu"),
        partial(torch.set_autocast_enabled, "cpu"),
    ),
}
"""What a forward can change for the whole process, and how it is read and put back."""


@contextlib.contextmanager
def modes_kept() -> Iterator[list[str]]:
    """Put back afterwards what a forward changed for the whole process; gives its names, then."""
    before = _modes()
    changed: list[str] = []
    try:
        yield changed
    finally:
        changed += [name for name, mode in _modes().items() if mode != before[name]]
        for name in changed:
            _MODES[name][1](before[name])


def _modes() -> dict[str, Any]:
    return {name: read() for name, (read, _) in _MODES.items()}


class _Writes(TorchFunctionMode):
    """While open, notes the memory of tensors that functions of torch write into.

    Of some storages only. A tensor has a count of writes, which `.data` has by itself.
    """

    def __init__(self, watched: Collection[Any]) -> None:
        super().__init__()
        self._watched = watched
        self.storages: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        given = [t for one in given for t in (one if isinstance(one, (list, tuple)) else [one])]
        before = [
            (tensor, tensor._version, storage)
            for tensor in given
            if isinstance(tensor, Tensor) and (storage := _storage(tensor)[0]) in self._watched
        ]
        answer = func(*args, **(kwargs or {}))
        self.storages += [kept for tensor, version, kept in before if tensor._version != version]
        return answer


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, not-a-numbers included."""
    if one.is_meta or one.shape != other.shape:
        return one.shape == other.shape
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _storage(tensor: Tensor) -> tuple[Any, Any]:
    return tensor.untyped_storage()._cdata, tensor.storage_offset()
