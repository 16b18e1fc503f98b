"""Update rules that a class of torch.optim computes, over the flat vector of weights.

The class is given one parameter for each run of weights with equal settings, a view of the flat
vector, and its state is kept in vectors of the same length: so it lies in checkpoints by the names
of the weights, is cut for parameter servers and merged by local SGD as that of our own rules. Only
classes that work element by element can be used so; `torch_problems` finds out.
"""

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.parameter_runs import Run
from sixfold.training.step.rules import (
    ELEMENTWISE,
    TORCH,
    class_of,
    parse_optimizer_args,
)

_STEP = "step"
"""Where torch's classes count their updates; follows from `TorchRule.updates`."""


class TorchRule:
    """An update rule that a class of torch.optim computes; see `Optimizer`.

    A class makes its state in its first step, so until then `slots` hold what a step with a
    gradient of zero makes of it.

    Args:
        config: the settings.
        weights: (P,) those to be updated.
        runs: their settings.
    """

    def __init__(self, config: OptimizerConfig, weights: Tensor, runs: Sequence[Run]) -> None:
        self._class = find_class(config.optimizer)
        self._arguments = parse_optimizer_args(config.optimizer_args)
        self._runs = [run for run in runs if run.stop > run.start]
        self.updates = 0
        probe = nn.Parameter(torch.zeros(2, dtype=weights.dtype))
        self._count: Any = None  # of updates, in the form that the class keeps it in
        vectors, numbers = self._first_state(probe, config.lr)
        self.slots = {
            name: torch.full_like(weights, float(value))
            for name, value in {**vectors, **numbers}.items()
        }
        self._vectors, self._numbers = list(vectors), numbers
        self._weights = weights
        self._begin(weights)

    def _first_state(
        self, probe: nn.Parameter, lr: float
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """What the class keeps: vectors with their first value, and single numbers."""
        optimizer = self._make([{"params": [probe], "lr": lr or 1.0, "weight_decay": 0.0}])
        probe.grad = torch.zeros_like(probe)
        optimizer.step()
        vectors: dict[str, float] = {}
        numbers: dict[str, Any] = {}
        for name, value in optimizer.state[probe].items():
            if name == _STEP:
                self._count = value
            elif isinstance(value, Tensor) and value.shape == probe.shape:
                vectors[name] = value[0].item()
            elif isinstance(value, Tensor | int | float):
                numbers[name] = value
        return vectors, numbers

    def _make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if "weight_decay" not in inspect.signature(self._class).parameters:
            groups = [{k: v for k, v in group.items() if k != "weight_decay"} for group in groups]
        made: torch.optim.Optimizer = self._class(groups, **self._arguments)
        return made

    def _begin(self, weights: Tensor) -> None:
        """An optimizer that has made no step, over views of these weights."""
        self._parameters = [nn.Parameter(weights[run.start : run.stop]) for run in self._runs]
        groups = [
            {"params": [parameter], "lr": 1.0, "weight_decay": run.weight_decay}
            for parameter, run in zip(self._parameters, self._runs, strict=True)
        ]
        self._optimizer = self._make(groups) if groups else None
        self._bound: dict[str, Tensor] = {}

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        if self.updates == 0:
            self._begin(weights)
        optimizer = self._optimizer
        if optimizer is None:
            self.updates += 1
            return
        for parameter, run in zip(self._parameters, self._runs, strict=True):
            if self._weights is not weights:
                parameter.data = weights[run.start : run.stop]
            parameter.grad = gradient[run.start : run.stop]
        self._weights = weights
        for group, run in zip(optimizer.param_groups, self._runs, strict=True):
            group["lr"] = lr * run.lr_factor
        if self.updates:
            self._load()
        optimizer.step()
        self._store()
        self.updates += 1

    def _load(self) -> None:
        """Let the optimizer see `slots` and the number of updates, whoever has changed them."""
        assert self._optimizer is not None
        is_bound = all(self._bound.get(name) is self.slots[name] for name in self._vectors)
        for parameter, run in zip(self._parameters, self._runs, strict=True):
            state = self._optimizer.state[parameter]
            if self._count is not None:
                state[_STEP] = _like(self._count, self.updates)
            for name, form in self._numbers.items():
                state[name] = _like(form, self.slots[name][run.start].item())
            if not is_bound:
                for name in self._vectors:
                    state[name] = self.slots[name][run.start : run.stop]
        self._bound = {name: self.slots[name] for name in self._vectors}

    def _store(self) -> None:
        """Keep in `slots` what the optimizer does not keep there anyway."""
        assert self._optimizer is not None
        for parameter, run in zip(self._parameters, self._runs, strict=True):
            state = self._optimizer.state[parameter]
            for name in self._vectors:
                place = self.slots[name][run.start : run.stop]
                if state[name].data_ptr() != place.data_ptr():
                    place.copy_(state[name])
                    state[name] = place
            for name in self._numbers:
                self.slots[name][run.start : run.stop] = float(state[name])
        self._bound = {name: self.slots[name] for name in self._vectors}


def _like(form: Any, value: float) -> Any:
    """A number in the form in which a class keeps it: a tensor, or a number of Python."""
    return torch.full_like(form, value) if isinstance(form, Tensor) else type(form)(value)


def find_class(name: str) -> Any:
    """The class that computes a rule.

    Raises:
        UserError: if there is none of this name.
    """
    path = class_of(name)
    if not path.startswith(TORCH):
        from sixfold.models.importing import find_object

        return find_object(path, "--optimizer")
    import torch.optim

    plain = path.removeprefix(TORCH)
    found = getattr(torch.optim, plain, None)
    if not isinstance(found, type):
        near = get_close_matches(plain, sorted(ELEMENTWISE), n=2)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"--optimizer {name}: torch.optim has no class {plain!r}{hint}")
    return found


def torch_problems(config: OptimizerConfig) -> list[str]:
    """Why a class cannot be used, or not with these arguments; one line each."""
    try:
        kind = find_class(config.optimizer)
    except UserError as error:
        return list(error.problems)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        return [f"--optimizer {config.optimizer}: is no subclass of torch.optim.Optimizer"]
    takes = [name for name in inspect.signature(kind).parameters if name not in ("self", "params")]
    given, found = parse_optimizer_args(config.optimizer_args), []
    for name in given:
        if name not in takes:
            near = get_close_matches(name, takes, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            found.append(
                f"--optimizer-args: {kind.__name__} has no argument {name!r}{hint}: it takes "
                f"{', '.join(takes)}"
            )
    if config.weight_decay and "weight_decay" not in takes:
        found.append(f"--weight-decay {config.weight_decay}: {kind.__name__} has none")
    if found:
        return found
    try:
        is_elementwise = works_on_slices(config)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        return [f"--optimizer {config.optimizer}: {kind.__name__} refuses: {error}"]
    if not is_elementwise:
        return [
            f"--optimizer {config.optimizer}: {kind.__name__} does not work element by element (an "
            "update of a slice differs from the slice of an update), so it cannot update flat "
            "weights"
        ]
    return []


def works_on_slices(config: OptimizerConfig) -> bool:
    """Whether three updates of a vector are those of its two halves, in float64."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(32, generator=generator, dtype=torch.float64)
    halves = [whole[:20].clone(), whole[20:].clone()]

    def rule(weights: Tensor) -> TorchRule:
        run = Run(start=0, stop=len(weights), lr_factor=1.0, weight_decay=config.weight_decay)
        return TorchRule(config, weights, [run])

    one, others = rule(whole), [rule(half) for half in halves]
    for scale in (1.0, 0.1, 3.0):
        gradient = scale * torch.randn(32, generator=generator, dtype=torch.float64)
        parts = [gradient[:20].clone(), gradient[20:].clone()]
        one.update(whole, gradient, 0.01)
        for other, half, part in zip(others, halves, parts, strict=True):
            other.update(half, part, 0.01)
    return bool((whole - torch.cat(halves)).abs().max() < 1e-12)
