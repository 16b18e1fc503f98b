"""What a user's forward does besides computing, found out before anything is started.

A shard's result may depend on nothing but weights, buffers, step and shard. So the network is run
a few times on the same images with the same random numbers, from the same weights and buffers:
values and all state that can be reached have to be the same each time. Parameters must stay
as they are, since every shard of a step computes with the weights at its beginning; buffers may
move, by as much for every sample.

Legend: N images; C H W channels, rows and columns of one.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.models.building import has_lazy, seed_all, seeded
from sixfold.models.observe import changed, observe
from sixfold.models.outputs import main_output
from sixfold.models.outside import watched
from sixfold.models.shapes import Shape, run
from sixfold.models.user_traceback import one_line

IMAGES = 2  # On which the network is run; statistics need more than one
_DOUBLED = 0.01  # How near to twice a buffer's change must come to be taken for a sum over samples
INEXACT = ", or train with --deterministic false"
"""How every remedy ends that such a training needs not."""

_STATE = (
    "which is neither parameter nor buffer: workers would each have their own, and saved weights "
    f"lack it; keep it with register_buffer{INEXACT}"
)
_OUTSIDE = (
    "of which no two workers get the same answer: leave it out (random numbers: torch.rand)"
    f"{INEXACT}"
)
_OTHERWISE = (
    "gives other values: keep what it remembers with register_buffer, or draw with torch.rand"
    f"{INEXACT}"
)


@dataclass
class Conduct:
    """What was found."""

    # what makes the result depend on the workers, unless it need not be exact
    state: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what cannot be trained at all


def conduct(make: Callable[[], nn.Module], shape: Shape, *, device: str = "cpu") -> Conduct:
    """Run a network that is known to run, and say what it should not have done.

    On the device "meta" no values are computed; then less can be found.
    """
    found = Conduct()
    with seeded(0), torch.device(device), _one_thread():
        network = _ready(make, shape)
        images = torch.randn(IMAGES, *shape)
        pristine = observe(network)
        for training in (False, True):
            network.train(training)
            _judge(trial := _Trial(network), images, found)
            if found.state or found.broken:
                return found
        place = changed(pristine, observe(network))
        if device == "cpu" and place is not None:
            _judge_first_images(network, _ready(make, shape), images, place, found)
        if device == "cpu":
            _judge_sums(trial, images, found)
    return found


def _ready(make: Callable[[], nn.Module], shape: Shape) -> nn.Module:
    seed_all(0)
    network = make()
    if has_lazy(network):
        run(network.eval(), torch.zeros(1, *shape))
    return network


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
        if differs and now.is_complex():
            return f"changes {where}, which is complex: keep real and imaginary part as two buffers"
        return None

    def _copy_back(self) -> None:
        with torch.no_grad():
            self.tensor.data = self.alias
            if not same_bits(self.tensor, self.before):
                self.tensor.data = self.before.clone()


_CONSTRAINT = (
    "which every shard and worker would do once more: compute with a changed copy, as "
    "F.linear(x, torch.renorm(self.weight, ...)) does, or put the constraint into "
    "torch.nn.utils.parametrize.register_parametrization"
)


class _Trial:
    """Runs of one network, each from the same weights and buffers."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.slots = [
            _Slot(
                module,
                f"{path}.{name}" if path else name,
                name,
                store is module._parameters,
                tensor,
                tensor.data,
                tensor.detach().clone(),
            )
            for path, module in network.named_modules()
            for store in (module._parameters, module._buffers)
            for name, tensor in store.items()
            if tensor is not None
        ]
        self._names = {slot.path for slot in self.slots}
        self.broken: str | None = None
        self.asked: list[str] = []

    def run(self, images: Tensor, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's output, and how far each of its buffers has moved."""
        seed_all(seed)
        with watched() as asked, torch.enable_grad():
            output: Tensor = main_output(self.network(images))
        self.asked = self.asked or asked
        moves = {
            slot.path: now.detach().double() - slot.before.double()
            for slot in self.slots
            if not slot.is_parameter and (now := slot.module._buffers.get(slot.name)) is not None
            if now.shape == slot.before.shape and not now.is_complex()
        }
        self.restore()
        return output.detach().clone(), moves

    def restore(self) -> None:
        found = [slot.put_back() for slot in self.slots]
        registered = chain(self.network.named_parameters(), self.network.named_buffers())
        new = [name for name, _ in registered if name not in self._names]
        found += [f"registers '{name}', which has to be there before training" for name in new]
        self.broken = self.broken or next(filter(None, found), None)


def _judge(trial: _Trial, images: Tensor, found: Conduct) -> None:
    """Run twice from the same weights and compare all that can be reached."""
    try:
        one, _ = trial.run(images)
        before = observe(trial.network)
        other, _ = trial.run(images)
    except Exception as error:
        trial.restore()
        found.broken.append(f"its forward raised {one_line(error)}")
        return
    place = changed(before, observe(trial.network))
    if trial.broken is not None:
        found.broken.append(f"its forward {trial.broken}")
    elif place is not None:
        found.state.append(f"its forward changes '{place}', {_STATE}")
    elif trial.asked:
        found.state.append(f"its forward calls {trial.asked[0]}, {_OUTSIDE}")
    elif not same_bits(one, other):
        found.state.append(f"its forward, run again with the same images, {_OTHERWISE}")


def _judge_first_images(
    seen: nn.Module, fresh: nn.Module, images: Tensor, place: str, found: Conduct
) -> None:
    """Whether what a network keeps of the first images that it sees changes what it computes."""
    others = images.flip(0) + 1
    one, other = (_Trial(network.train()).run(others, seed=2)[0] for network in (seen, fresh))
    if not same_bits(one, other):
        found.state.append(f"its forward keeps '{place}' of the first images it sees, {_STATE}")


def _judge_sums(trial: _Trial, images: Tensor, found: Conduct) -> None:
    """Whether a buffer moves by a sum over samples: shards' moves are averaged, not added."""
    try:
        once, twice = (trial.run(x)[1] for x in (images, torch.cat([images, images])))
    except Exception:  # it knows its number of images
        trial.restore()
        return
    for name, move in once.items():
        size = float(twice[name].norm()) if name in twice else 0.0
        if size > 0 and float((twice[name] - 2 * move).norm()) <= _DOUBLED * size:
            found.broken.append(
                f"its forward adds to the buffer '{name}' for every image, but the changes of a "
                "step's shards are averaged: use the mean over images, or count batches"
            )
            return


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, not-a-numbers included."""
    if one.is_meta or one.shape != other.shape:
        return one.shape == other.shape
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _storage(tensor: Tensor) -> tuple[Any, Any]:
    return tensor.untyped_storage()._cdata, tensor.storage_offset()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
