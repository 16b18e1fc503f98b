"""What a user's forward does besides computing, found out before anything is started.

A shard's result may depend on nothing but weights, buffers, step and shard. So the network is run
a few times on the same images with the same random numbers, from the same weights and buffers:
values and all state that can be reached have to be the same each time. Parameters must stay
as they are, since every shard of a step computes with the weights at its beginning; buffers may
move, by as much for every sample.

Legend: N images; C H W channels, rows and columns of one.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.models.building import has_lazy, seed_all, seeded
from sixfold.models.hashes import WORLDS, answering, may_depend
from sixfold.models.observe import Reached, changed, observe, reach, rewinder
from sixfold.models.shapes import Shape, run
from sixfold.models.shared_memory import sharing_problem
from sixfold.models.trial import Trial, same_bits
from sixfold.models.user_traceback import one_line

IMAGES = 2  # On which the network is run; statistics need more than one
_DOUBLED = 0.01  # How near a buffer's growth must come to twice, with twice the images, for a sum
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
_LARGER = 2.0**16
"""How much larger a gradient is tried with: a power of two, by which products stay exact."""

_ROUNDING = 1e-3
"""Of a tensor's norm; what clips or normalises a gradient is off by more."""

_NOT_LINEAR = (
    "is not linear in the gradient (it is clipped, normalised or rounded on its way), which here "
    "is the sum over a shard's samples, not the batch's mean: use --clip-norm or --clip-value"
)
_BY_HASHES = (
    "another in each process, since it follows from id(), hash() or the order of a set: keep an "
    f"order in a list or dict, and hash texts with zlib.crc32{INEXACT}"
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
        pristine, rewind = observe(network), rewinder(network)
        try:
            for judge in _JUDGES if device == "cpu" else (_judge_values,):
                for training in (False, True):
                    network.train(training)
                    judge(Trial(network), images, found)
                    if found.state or found.broken:
                        return found
            place = changed(pristine, observe(network))
            if device == "cpu" and place is not None:
                others = images.flip(0) + 1
                one = _grown(network).run(others, seed=2)[0]
                rewind()
                other = _grown(_ready(make, shape).train()).run(others, seed=2)[0]
                if not same_bits(one, other):
                    found.state.append(
                        f"its forward keeps '{place}' of the first images or weights, {_STATE}"
                    )
                    return found
            if device == "cpu" and may_depend(reached := reach(network)):
                made = functools.partial(_ready, make, shape)
                _judge_hashes(made, reached, rewind, images, found)
        finally:
            rewind()
    return found


def _judge_hashes(
    make: Callable[[], nn.Module],
    reached: Reached,
    rewind: Callable[[], None],
    images: Tensor,
    found: Conduct,
) -> None:
    """Build and run it as if in other processes, where objects lie elsewhere."""
    first: list[tuple[str, Tensor]] | None = None
    for world in WORLDS:
        rewind()
        try:
            with answering(world, reached):
                network = make()
                now = [(name, tensor.clone()) for name, tensor in network.state_dict().items()]
                for training in (False, True):
                    now.append(("", Trial(network.train(training)).run(images)[0]))
        except Exception:  # what was imported before is no longer found
            return
        first = first or now
        for (name, one), (other_name, other) in zip(first, now, strict=True):
            if name != other_name or not same_bits(one, other):
                what = f"its '{name}' is" if name else "its output is"
                found.state.append(f"{what} {_BY_HASHES}")
                return


def _grown(network: nn.Module) -> Trial:
    """A network with larger weights, which what was made of the first ones does not follow."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data * 1.5
    return Trial(network)


def _ready(make: Callable[[], nn.Module], shape: Shape) -> nn.Module:
    seed_all(0)
    network = make()
    if has_lazy(network):
        run(network.eval(), torch.zeros(1, *shape))
    return network


def _judge_values(trial: Trial, images: Tensor, found: Conduct) -> None:
    """Run twice from the same weights and compare all that can be reached."""
    try:
        one, moves = trial.run(images)
        before = observe(trial.network)
        other, _ = trial.run(images)
    except Exception as error:
        trial.restore()
        found.broken.append(f"its forward raised {one_line(error)}")
        return
    place = changed(before, observe(trial.network))
    moved = _moved(moves)
    if trial.broken is not None:
        found.broken.append(f"its forward {trial.broken}")
    elif lost := next((name for name in moved if not trial.is_saved(name)), None):
        found.broken.append(
            f"its forward changes the buffer '{lost}', which saved weights lack: register it "
            "without persistent=False"
        )
    elif problem := sharing_problem(trial.network, moved):
        found.broken.append(problem)
    elif place is not None:
        found.state.append(f"its forward changes '{place}', {_STATE}")
    elif trial.asked:
        found.state.append(f"its forward calls {trial.asked[0]}, {_OUTSIDE}")
    elif not same_bits(one, other):
        found.state.append(f"its forward, run again with the same images, {_OTHERWISE}")


def _judge_gradients(trial: Trial, images: Tensor, found: Conduct) -> None:
    """Run backward too, twice and with a larger gradient, which all it computes must follow."""
    if not trial.network.training:
        return
    if problem := next(filter(None, starmap(_hook_problem, _hooks(trial.network))), None):
        found.broken.append(problem)
        return
    try:
        one = trial.gradients(images)
        before = observe(trial.network)
        other = trial.gradients(images)
        place = changed(before, observe(trial.network))
        larger = trial.gradients(images, _LARGER)
    except Exception as error:
        trial.restore()
        found.broken.append(f"its backward raised {one_line(error)}")
        return
    if one is None or other is None or larger is None:
        found.broken.append(
            "its output depends on none of its parameters (.detach(), .data, torch.no_grad or "
            "NumPy in its forward), so it would never learn"
        )
    elif trial.asked:
        found.state.append(f"its backward calls {trial.asked[0]}, {_OUTSIDE}")
    elif place is not None:
        found.state.append(f"its backward changes '{place}', {_STATE}")
    elif not all(map(same_bits, one, other)):
        found.state.append(f"its backward, run again with the same images, {_OTHERWISE}")
    elif not all(map(_is_near, [g / _LARGER for g in larger], one)):
        found.broken.append(f"its backward {_NOT_LINEAR}")


def _hooks(network: nn.Module) -> Iterator[tuple[str, nn.Parameter, Any]]:
    """Hooks of parameters, with their names; None for one that waits for the gradient's sum."""
    for name, parameter in network.named_parameters():
        if getattr(parameter, "_post_accumulate_grad_hooks", None):
            yield name, parameter, None
        for hook in (parameter._backward_hooks or {}).values():
            yield name, parameter, hook


def _hook_problem(name: str, parameter: nn.Parameter, hook: Any) -> str:
    """Why a hook of a parameter cannot be called with the gradient of each shard."""
    if hook is None:
        return (
            f"its parameter '{name}' has a hook of register_post_accumulate_grad_hook, which would "
            "never be called: give the update rule with --optimizer"
        )

    def hooked(gradient: Tensor) -> Tensor:
        given = gradient.clone()
        answer = hook(given)
        return given if answer is None else answer

    with torch.no_grad():
        one, other = torch.randn_like(parameter), 1e3 * torch.randn_like(parameter)
        try:
            is_sum = _is_near(hooked(one) + hooked(other), hooked(one + other))
        except Exception as error:
            return f"the hook of its parameter '{name}' raised {one_line(error)}"
    return "" if is_sum else f"the hook of its parameter '{name}' {_NOT_LINEAR}"


def _is_near(found: Tensor, wanted: Tensor) -> bool:
    """Whether tensors differ by no more than rounding; True if there is nothing to compare."""
    if not (torch.isfinite(found).all() and torch.isfinite(wanted).all()):
        return True
    return float((found - wanted).norm()) <= _ROUNDING * float(wanted.norm())


def _judge_writes(trial: Trial, images: Tensor, found: Conduct) -> None:
    """Whether weights are written that happen to be what they were."""
    if trial.network.training and (broken := trial.written(images)):
        found.broken.append(f"its forward {broken}")


def _moved(moves: Mapping[str, Tensor]) -> list[str]:
    """Names of the buffers that have moved; not a number is what stays as it is."""
    return [
        name
        for name, move in moves.items()
        if not move.is_meta and bool(((move != 0) & (move == move)).any())
    ]


def _judge_sums(trial: Trial, images: Tensor, found: Conduct) -> None:
    """Whether what buffers move by can be averaged over shards: no sums, no images' numbers."""
    if not trial.network.training:
        return
    try:
        once = trial.run(images)[1]
        if not (moved := _moved(once)):
            return
        twice, often = (trial.run(torch.cat([images] * n))[1] for n in (2, 4))
        other = trial.run(images.flip(-1) + 1, seed=2)[1]
    except Exception:  # it knows its number of images
        trial.restore()
        return
    whole = {n for n, b in trial.network.named_buffers() if not b.is_floating_point()}
    for name in moved:
        if name not in twice.keys() & often.keys() & other.keys():
            continue
        grows, grows_on = twice[name] - once[name], often[name] - twice[name]
        size = float(grows_on.norm())
        if size > _ROUNDING * float(often[name].norm()) and float(
            (grows_on - 2 * grows).norm()
        ) <= (_DOUBLED * size):
            found.broken.append(
                f"its forward adds to the buffer '{name}' for every image, but the changes of a "
                "step's shards are averaged: use the mean over images, or count batches"
            )
            return
        if name in whole and not same_bits(once[name], other[name]):
            found.broken.append(
                f"its forward changes the whole numbers of the buffer '{name}' by what images or "
                "random numbers say, but the changes of a step's shards are averaged: keep it as "
                "floating-point numbers, or leave it out"
            )
            return


_JUDGES = (_judge_values, _judge_writes, _judge_sums, _judge_gradients)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
