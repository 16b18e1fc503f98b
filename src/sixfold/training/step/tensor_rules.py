"""Update rules that need whole tensors: Muon and LARS.

They cannot be applied to a slice of the flat weights, so they are for strategies in which a rank
holds whole tensors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.flat import FlatState
from sixfold.training.step.rules import parse_optimizer_args

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of the quintic, from Jordan et al."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor lies in the flat vector, and its settings."""

    start: int
    shape: torch.Size
    lr_factor: float
    weight_decay: float

    def view(self, vector: Tensor) -> Tensor:
        """The tensor's part of a (P,) vector, in its shape."""
        return vector[self.start : self.start + self.shape.numel()].view(self.shape)


def tensor_places(state: FlatState, settings: Mapping[str, tuple[float, float]]) -> list[Place]:
    """The places of a network's tensors, with factor of the learning rate and weight decay."""
    shapes = [parameter.shape for parameter in state.trainable]
    return [
        Place(start=start, shape=shape, lr_factor=settings[name][0], weight_decay=settings[name][1])
        for (name, start), shape in zip(state.places, shapes, strict=True)
    ]


class Muon:
    """Muon: the momentum of a matrix, made orthogonal.

    For a matrix W (K x M; the filters of a convolution, K x C x R x S, are K rows) and its gradient
    G, with momentum m, learning rate lr and weight decay d:

        B = m B + (1 - m) G;   U = m B + (1 - m) G (Nesterov) or B;
        W = (1 - lr d) W - 0.2 sqrt(max(K, M)) lr O(U)

    O(U) is U = P S Q^T with its singular values S brought near to 1, by five iterations of
    X <- a X + (b A + c A^2) X with A = X X^T, from X = U / ||U||. The factor 0.2 sqrt(max(K, M))
    gives the update the size of AdamW's, so that one learning rate serves all parameters: those of
    one dim, and the last matrix (the classifier), are updated by AdamW.

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the factor:
    J. Liu et al., "Muon is scalable for LLM training", 2025. Here the iterations are made in the
    precision of the weights, in place of bfloat16.
    """

    def __init__(
        self,
        weights: Tensor,
        places: list[Place],
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        iterations: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        self.momentum, self.nesterov, self.iterations = momentum, nesterov, iterations
        self.betas, self.epsilon = betas, eps
        matrices = [place for place in places if len(place.shape) >= 2]
        self._matrices = matrices[:-1] or matrices
        self._others = [place for place in places if place not in self._matrices]
        self.slots = {
            "momentum": torch.zeros_like(weights),
            "second_moment": torch.zeros_like(weights),
        }
        self.updates = 0

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `sixfold.training.step.update_rule.Optimizer.update`."""
        self.updates += 1
        first, second = self.slots["momentum"], self.slots["second_moment"]
        for place in self._matrices:
            own = lr * place.lr_factor
            grad, kept = place.view(gradient), place.view(first)
            kept.lerp_(grad, 1 - self.momentum)
            moved = grad.lerp(kept, self.momentum) if self.nesterov else kept
            rows = moved.reshape(moved.shape[0], -1)
            size = 0.2 * math.sqrt(max(rows.shape))
            made = orthogonal(rows, self.iterations).view(moved.shape)
            place.view(weights).mul_(1 - own * place.weight_decay).add_(made, alpha=-own * size)
        for place in self._others:
            self._adamw(place, weights, gradient, (first, second), lr * place.lr_factor)

    def _adamw(
        self,
        place: Place,
        weights: Tensor,
        gradient: Tensor,
        moments: tuple[Tensor, Tensor],
        lr: float,
    ) -> None:
        """Loshchilov and Hutter, "Decoupled weight decay regularization", 2019."""
        beta1, beta2 = self.betas
        grad = place.view(gradient)
        first, second = (place.view(moment) for moment in moments)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        spread = (second / (1 - beta2**self.updates)).sqrt_().add_(self.epsilon)
        own = place.view(weights).mul_(1 - lr * place.weight_decay)
        own.addcdiv_(first, spread, value=-lr / (1 - beta1**self.updates))


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """A matrix (K, M) with its singular values brought near to 1, by Newton-Schulz iterations."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    found: Tensor = wide / wide.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = found @ found.T
        found = a * found + (b * gram + c * (gram @ gram)) @ found
    return found.T if matrix.shape[0] > matrix.shape[1] else found


class Lars:
    """LARS: the learning rate of a tensor in proportion to its weights over its gradient.

    For a tensor w with gradient g, learning rate lr, momentum m, weight decay d and trust t:

        s = t ||w|| / (||g|| + d ||w|| + eps)   (1 for tensors of one dim, and where w or g is 0)
        v = m v + lr s (g + d w);   w = w - v

    Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017; t 0.001.
    Norms are taken in float64. Biases and norms, of one dim, move as by SGD, as is usual.
    """

    def __init__(
        self,
        weights: Tensor,
        places: list[Place],
        *,
        momentum: float,
        trust: float = 0.001,
        eps: float = 0.0,
    ) -> None:
        self.momentum, self.trust, self.epsilon = momentum, trust, eps
        self._places = places
        self.slots = {"velocity": torch.zeros_like(weights)}
        self.updates = 0

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `sixfold.training.step.update_rule.Optimizer.update`."""
        self.updates += 1
        for place in self._places:
            own, grad = place.view(weights), place.view(gradient)
            scale = 1.0
            if len(place.shape) >= 2:
                size, slope = _norm(own), _norm(grad)
                if size > 0 and slope > 0:
                    below = slope + place.weight_decay * size + self.epsilon
                    scale = self.trust * size / below
            if place.weight_decay:
                grad.add_(own, alpha=place.weight_decay)
            velocity = place.view(self.slots["velocity"])
            own.sub_(velocity.mul_(self.momentum).add_(grad, alpha=lr * place.lr_factor * scale))


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def make_tensor_rule(
    config: OptimizerConfig, state: FlatState, settings: Mapping[str, tuple[float, float]]
) -> Muon | Lars:
    """The rule that the settings name, with fresh state."""
    places = tensor_places(state, settings)
    arguments = parse_optimizer_args(config.optimizer_args)
    if config.optimizer == "lars":
        return Lars(state.parameters, places, momentum=config.momentum, **arguments)
    return Muon(state.parameters, places, **arguments)
