"""A loss of the user's: a function of (output, target) or (output, target, weight).

It gives the sum over samples of w_i l_i, as a tensor that autograd can take back. A step adds over
shards, so a mean over samples would depend on how they are cut; that is found out by trying:

    f(a and b) = f(a) + f(b)

for two halves a, b of real samples. torch's own losses are means by default: they are multiplied by
the number of samples.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sixfold.core.errors import UserError
from sixfold.models.importing import find_object
from sixfold.models.outputs import main_output, named_outputs, rebuilt
from sixfold.models.user_traceback import one_line
from sixfold.training.losses.loss import Computed, Loss, Score

Function = Callable[..., Tensor]
ROUNDING = 1e-4
"""How far, relative to its size, a sum over samples in float32 may be from the sum of its parts."""


def find_loss(name: str) -> Function:
    """The function that `--loss` names; a `UserError` if there is none, or it cannot be called."""
    found = find_object(name, "--loss")
    if isinstance(found, type) and issubclass(found, torch.nn.Module):
        found = found()
    if not callable(found):
        raise UserError(f"--loss {name} is a {type(found).__name__}: it cannot be called")
    function: Function = found
    return TorchMean(function) if is_mean_of_torch(function) else function


def is_mean_of_torch(function: Function) -> bool:
    """Whether this is a loss of torch.nn or torch.nn.functional that takes means over samples.

    With weights of classes, or targets that are left out, it divides by another number.
    """
    if isinstance(function, torch.nn.modules.loss._Loss):
        is_plain = getattr(function, "weight", None) is None
        is_plain &= getattr(function, "ignore_index", -100) < 0
        return is_plain and function.reduction == "mean"
    of_torch = getattr(function, "__module__", None) == "torch.nn.functional"
    return of_torch and "reduction" in inspect.signature(function).parameters


class TorchMean:
    """The sum over samples of a loss that is a mean over them.

    A third argument of torch's functions has the weights of classes, not of samples.
    """

    def __init__(self, function: Function) -> None:
        self._mean = function

    def __call__(self, output: Any, target: Tensor) -> Tensor:
        """The mean over all numbers of the target, once for each sample."""
        return self._mean(output, target) * len(target)


def takes_weight(function: Function) -> bool:
    """Whether a function takes the weights of samples as its third argument."""
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    has_more = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    return has_more or len(places) > 2


def call(function: Function, output: Any, target: Tensor, weight: Tensor | None) -> Tensor:
    """The function's value, with all weights 1 where there are none."""
    if not takes_weight(function):
        return function(output, target)
    if weight is None:
        weight = main_output(output).new_ones(len(target))
    return function(output, target, weight)


def make(function: Function, score: Score | None) -> Loss:
    """The loss of a network with one output."""

    def compute(output: Tensor, target: Tensor, weight: Tensor | None) -> Computed:
        leaf = output.detach().requires_grad_()
        with torch.enable_grad():
            value = call(function, leaf, target, weight)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    return Loss(
        compute=compute,
        plain=lambda output, target: call(function, output, target, None),
        score=score,
    )


def problems_of(
    name: str, function: Function, outputs: Any, target: Tensor, *, weighted: bool
) -> list[str]:
    """Why a function is no loss that adds over samples, found by calling it; one line each.

    `outputs` is what the network gives for some images, in its own structure, `target` what is true
    of them; `name` is what `--loss` was given.
    """
    if weighted and not takes_weight(function):
        return [
            f"--loss {name}: samples have weights, which it does not take: give it a third "
            "argument, weight (n,), or leave --class-weights and --weight-column out"
        ]
    half = len(target) // 2

    def value(part: slice, *, gradient: bool = False) -> Tensor:
        named = {key: each.detach()[part] for key, each in named_outputs(outputs).items()}
        leaves = {key: each.clone().requires_grad_(gradient) for key, each in named.items()}
        given = next(iter(leaves.values())) if isinstance(outputs, Tensor) else None
        own = rebuilt(outputs, leaves) if given is None else given
        weight = torch.linspace(0.5, 2, len(target), dtype=target_dtype)[part]
        found = call(function, own, target[part], weight if takes_weight(function) else None)
        if gradient and isinstance(found, Tensor) and found.requires_grad and found.dim() == 0:
            found.backward()  # type: ignore[no-untyped-call]
        return found

    target_dtype = main_output(outputs).dtype
    whole = slice(0, 2 * half)
    try:
        with torch.enable_grad():
            once = value(whole, gradient=True)
        if not isinstance(once, Tensor) or once.numel() != 1 or once.dim() > 0:
            shown = tuple(once.shape) if isinstance(once, Tensor) else type(once).__name__
            return [
                f"--loss {name}: gives {shown}: expected a single number, the sum over samples: "
                "use reduction='sum', or .sum()"
            ]
        if not once.requires_grad:
            return [f"--loss {name}: its value does not depend on the output: nothing would learn"]
        once, again = once.detach(), value(whole)
        left, right = value(slice(0, half)), value(slice(half, 2 * half))
    except Exception as error:
        return [f"--loss {name}: calling it with the network's output raised {one_line(error)}"]
    if not torch.equal(once, again):
        return [
            f"--loss {name}: gives another value when it is called again ({float(once):g}, "
            f"{float(again):g}): it must depend on its arguments alone"
        ]
    parts, size = float(left + right), float(left.abs() + right.abs())
    if abs(float(once) - parts) > ROUNDING * max(size, 1e-12):
        mean = abs(float(once) - parts / 2) <= ROUNDING * max(size, 1e-12)
        why = "a mean over samples" if mean else "no sum over samples"
        return [
            f"--loss {name}: is {why}: {float(once):g} for {2 * half} samples, but "
            f"{float(left):g} + {float(right):g} for two halves of them: use "
            "reduction='sum', or multiply a plain mean by len(target)"
        ]
    return []
