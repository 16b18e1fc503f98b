"""The loss of a network with several outputs: that of the main one, and auxiliary heads' by weight.

    L = l(main) + sum over heads h of  a_h l(h)

C. Szegedy et al., "Going deeper with convolutions", 2015 (auxiliary classifiers).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sixfold.core.checks import unknown
from sixfold.core.errors import raise_problems
from sixfold.training.layers.joined_outputs import Outputs
from sixfold.training.losses.loss import Computed, Loss, Score
from sixfold.training.losses.own import Function, call


def aux_weights(text: str, heads: list[str]) -> dict[str, float]:
    """The weight of every auxiliary head, from a number for all, or NAME=W,...

    A `UserError` tells everything that is wrong.

    >>> aux_weights("0.3", ["a", "b"]), aux_weights("b=1", ["a", "b"])
    ({'a': 0.3, 'b': 0.3}, {'a': 0.0, 'b': 1.0})
    """
    given: dict[str, float] = {}
    problems = []
    for item in text.split(","):
        name, equals, value = item.rpartition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            problems.append(
                f"--aux-weight {text}: {item!r}: expected a number of at least 0, or NAME=W,..."
            )
        elif not equals:
            given |= dict.fromkeys(heads, weight)
        elif name.strip() not in heads:
            problems.append(f"--aux-weight {text}: " + unknown("output", name.strip(), heads))
        else:
            given[name.strip()] = weight
    raise_problems(problems)
    return {head: given.get(head, 0.0) for head in heads}


def read_aux_weights(text: str) -> dict[str, float]:
    """The weights of a text that has been settled: ``NAME=W,...`` with every head."""
    pairs = (item.rpartition("=") for item in text.split(","))
    return {name: float(value) for name, _, value in pairs}


def with_heads(loss: Loss, weights: Mapping[str, float]) -> Loss:
    """The loss of outputs by name, the main one first."""

    def compute(outputs: dict[str, Tensor], target: Tensor, weight: Tensor | None) -> Computed:
        main, *heads = outputs
        total, gradient = loss.compute(outputs[main], target, weight)
        gradients = {main: gradient}
        for head in heads:
            factor = weights.get(head, 0.0)
            if factor == 0:
                gradients[head] = torch.zeros_like(outputs[head])
                continue
            value, gradient = loss.compute(outputs[head], target, weight)
            total, gradients[head] = total + factor * value, gradient * factor
        return total, gradients

    return Loss(compute=compute, plain=loss.plain, score=loss.score, several=True)


@dataclass(frozen=True)
class OfAllOutputs:
    """A loss of the user's as evaluations tell it: of whatever the network gives."""

    function: Function

    def __call__(self, outputs: Any, target: Tensor) -> Tensor:
        """The sum over samples, with all weights 1."""
        return call(self.function, outputs, target, None)


def own_of_all(function: Function, score: Score | None) -> Loss:
    """A loss of the user's that is given all outputs, in the network's own structure."""

    def compute(outputs: Outputs, target: Tensor, weight: Tensor | None) -> Computed:
        leaves = {name: each.detach().requires_grad_() for name, each in outputs.items()}
        with torch.enable_grad():
            value = call(function, outputs.as_given(leaves), target, weight)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }
        return value.detach(), gradients

    plain = OfAllOutputs(function)
    return Loss(compute=compute, plain=plain, score=score, several=True)
