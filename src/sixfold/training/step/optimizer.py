"""Update rules on flat vectors: how weights follow from the mean gradient.

Most rules work element by element, so that any slice of the weights can be updated by itself with
the same bits. SGD and Adam follow torch.optim's definitions (tests hold them to it); computing them
here saves the second that torch.optim takes to import its compiler. The other classes of
torch.optim are used as they are (`sixfold.training.step.torch_rules`).
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.averaging import AveragedUpdate
from sixfold.training.step.clipping import ClippedUpdate, flat_norm
from sixfold.training.step.flat import FlatState
from sixfold.training.step.parameter_runs import Run, group_settings, parameter_runs
from sixfold.training.step.rules import class_of, parse_optimizer_args, rule_of
from sixfold.training.step.update_rule import Optimizer


class Sgd:
    """Stochastic gradient descent with momentum and weight decay.

    g = gradient + decay w;  v = momentum v + g;  w = w - lr v,  or with Nesterov's momentum
    w = w - lr (g + momentum v).

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, in
    torch's form, where the learning rate multiplies the velocity.
    """

    def __init__(
        self, weights: Tensor, *, momentum: float, weight_decay: float, nesterov: bool = False
    ) -> None:
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.slots = {"velocity": torch.zeros_like(weights)} if momentum else {}
        self.updates = 0

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        if self.weight_decay:
            gradient.add_(weights, alpha=self.weight_decay)
        if self.momentum:
            velocity = self.slots["velocity"].mul_(self.momentum).add_(gradient)
            if self.nesterov:
                gradient.add_(velocity, alpha=self.momentum)
            else:
                gradient = velocity
        weights.add_(gradient, alpha=-lr)
        self.updates += 1


class Adam:
    """Adam: steps scaled by running estimates of the gradient's first and second moments.

    g = gradient + decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    w = w - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015; b1 0.9, b2 0.999, eps 1e-8.
    """

    def __init__(
        self,
        weights: Tensor,
        *,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.beta1, self.beta2 = betas
        self.epsilon = eps
        self.weight_decay = weight_decay
        self.slots = {
            "first_moment": torch.zeros_like(weights),
            "second_moment": torch.zeros_like(weights),
        }
        self.updates = 0

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        self.updates += 1
        if self.weight_decay:
            gradient.add_(weights, alpha=self.weight_decay)
        first, second = self.slots["first_moment"], self.slots["second_moment"]
        first.lerp_(gradient, 1 - self.beta1)
        second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = lr / (1 - self.beta1**self.updates)
        spread = (second / (1 - self.beta2**self.updates)).sqrt_().add_(self.epsilon)
        weights.addcdiv_(first, spread, value=-scale)


class GroupedRule:
    """One rule with other settings on each run of the weights; see `Optimizer`.

    Args:
        make: makes the rule of a run from its weights and its weight decay.
        weights: (P,) all weights.
        runs: that cover them.
    """

    def __init__(
        self, make: Callable[[Tensor, float], Optimizer], weights: Tensor, runs: Sequence[Run]
    ) -> None:
        self._runs = runs
        self._rules = [make(weights[run.start : run.stop], run.weight_decay) for run in runs]
        self._names = list(self._rules[0].slots)
        self.slots = {name: torch.zeros_like(weights) for name in self._names}
        self.updates = 0

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `Optimizer.update`."""
        for run, rule in zip(self._runs, self._rules, strict=True):
            place = slice(run.start, run.stop)
            rule.slots = {name: self.slots[name][place] for name in self._names}
            rule.updates = self.updates
            rule.update(weights[place], gradient[place], lr * run.lr_factor)
        self.updates += 1


def make_optimizer(
    config: OptimizerConfig, weights: Tensor, runs: Sequence[Run] | None = None
) -> Optimizer:
    """The update rule that the settings name, with fresh state, for the weights or any slice.

    Gradients are not clipped in it, since a slice does not show their norm.

    Args:
        config: the settings.
        weights: (P,) or a slice.
        runs: settings of single parameters, if they differ.
    """
    if runs is None:
        run = Run(start=0, stop=len(weights), lr_factor=1.0, weight_decay=config.weight_decay)
        runs = (run,)
    return _averaging(config, _plain_rule(config, weights, runs), weights)


def _averaging(config: OptimizerConfig, rule: Optimizer, weights: Tensor) -> Optimizer:
    return rule if config.ema is None else AveragedUpdate(rule, weights, config.ema)


def _plain_rule(config: OptimizerConfig, weights: Tensor, runs: Sequence[Run]) -> Optimizer:
    if class_of(config.optimizer):
        from sixfold.training.step.torch_rules import TorchRule

        return TorchRule(config, weights, runs)

    def make(part: Tensor, decay: float) -> Optimizer:
        if config.optimizer == "adam":
            return Adam(part, weight_decay=decay, **parse_optimizer_args(config.optimizer_args))
        return Sgd(part, momentum=config.momentum, weight_decay=decay, nesterov=config.nesterov)

    decay = config.weight_decay
    is_plain = all(run.lr_factor == 1 and run.weight_decay == decay for run in runs)
    return make(weights, decay) if is_plain else GroupedRule(make, weights, runs)


def whole_optimizer(
    config: OptimizerConfig,
    state: FlatState,
    model: nn.Module | None = None,
    norm: Callable[[Tensor], float] = flat_norm,
) -> Optimizer:
    """The update rule of a whole network, or of a rank's part of one, with fresh state.

    Args:
        config: the settings.
        state: flat views of what is updated.
        model: the whole network, whose names patterns mean; that of `state` if absent.
        norm: of the whole gradient, from this rank's part of it.

    Raises:
        UserError: with every pattern that matches no parameter.
    """
    if rule_of(config.optimizer).whole_tensors:
        from sixfold.training.step.tensor_rules import make_tensor_rule

        settings = group_settings(config, state.model if model is None else model)
        tensor_rule = make_tensor_rule(config, state, settings)
        rule = _averaging(config, tensor_rule, state.parameters)
    else:
        rule = make_optimizer(config, state.parameters, parameter_runs(config, state, model))
    is_clipped = config.clip_value is not None or config.clip_norm is not None
    return ClippedUpdate(rule, config, norm) if is_clipped else rule


def argument_problems(config: OptimizerConfig) -> list[str]:
    """Why `--optimizer-args` cannot be used, found out by two updates of a small network."""
    state = FlatState(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    try:
        rule = whole_optimizer(
            dataclasses.replace(config, lr_group=(), weight_decay_group=()), state
        )
        for _ in range(2):
            rule.update(state.parameters, torch.ones_like(state.parameters), 0.1)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        text = str(error).splitlines()[0]
        return [f"--optimizer-args {config.optimizer_args}: {config.optimizer} refuses: {text}"]
    return []
