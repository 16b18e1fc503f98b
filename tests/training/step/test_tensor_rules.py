"""Muon and LARS against plain references and torch.optim.Muon."""

import math

import torch
from torch import Tensor, nn

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import whole_optimizer
from sixfold.training.step.tensor_rules import NEWTON_SCHULZ, orthogonal

DECAY = 0.1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(6, 9), nn.Linear(9, 5)).double()


def gradient_of(state: FlatState, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    gradient = torch.zeros_like(state.parameters)
    for view in state.views(gradient):
        view.copy_(torch.randn(view.shape, generator=generator, dtype=view.dtype))
    return gradient


def by_singular_values(matrix: Tensor, iterations: int) -> Tensor:
    """What the iterations amount to: each singular value goes through the quintic by itself."""
    a, b, c = NEWTON_SCHULZ
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(iterations):
        values = a * values + b * values**3 + c * values**5
    found: Tensor = left @ torch.diag(values) @ right
    return found


def test_newton_schulz_is_the_quintic_of_the_singular_values() -> None:
    for shape in ((7, 4), (4, 7), (5, 5)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        found = orthogonal(matrix, 5)
        assert (found - by_singular_values(matrix, 5)).abs().max() < 1e-10
        assert 0.3 < torch.linalg.svdvals(found).min() <= torch.linalg.svdvals(found).max() < 1.3


def test_muon_is_its_rule_on_matrices_and_adamw_on_the_rest() -> None:
    config = OptimizerConfig(optimizer="muon", weight_decay=DECAY, lr=0.02)
    state = FlatState(network())
    ours = whole_optimizer(config, state)
    own = [parameter.detach().clone() for parameter in network().parameters()]
    kept = [torch.zeros_like(parameter) for parameter in own]
    # Weight and bias of a convolution, of a layer, and of the last one, the classifier.
    others = [nn.Parameter(own[place]) for place in (1, 3, 4, 5)]
    adamw = torch.optim.AdamW(others, lr=0.02, betas=(0.9, 0.95), weight_decay=DECAY)
    for step in range(4):
        gradient = gradient_of(state, step)
        grads = [view.clone() for view in state.views(gradient)]
        ours.update(state.parameters, gradient, 0.02)
        for place in (0, 2):
            kept[place] = 0.95 * kept[place] + 0.05 * grads[place]
            moved = 0.95 * kept[place] + 0.05 * grads[place]
            rows = moved.reshape(len(moved), -1)
            size = 0.2 * math.sqrt(max(rows.shape))
            made = by_singular_values(rows, 5).reshape(moved.shape)
            own[place] = own[place] * (1 - 0.02 * DECAY) - 0.02 * size * made
        for parameter, place in zip(others, (1, 3, 4, 5), strict=True):
            parameter.grad = grads[place]
        adamw.step()
    expected = [own[0], others[0], own[2], *others[1:]]
    for view, wanted in zip(state.views(state.parameters), expected, strict=True):
        assert (view - wanted.detach()).abs().max() < 1e-9


def test_muon_is_that_of_torch_up_to_its_bfloat16() -> None:
    model = nn.Sequential(nn.Linear(6, 9, bias=False), nn.Linear(9, 5, bias=False)).double()
    state = FlatState(model)
    first = nn.Parameter(state.views(state.parameters)[0].clone())
    theirs = torch.optim.Muon([first], lr=0.02, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    ours = whole_optimizer(OptimizerConfig(optimizer="muon", weight_decay=DECAY), state)
    for step in range(4):
        gradient = gradient_of(state, step)
        first.grad = state.views(gradient)[0].clone()
        theirs.step()  # type: ignore[no-untyped-call]
        ours.update(state.parameters, gradient, 0.02)
    moved = state.views(state.parameters)[0]
    assert (moved - first.detach()).norm() / first.detach().norm() < 0.02


def test_lars_scales_tensors_and_moves_vectors_as_sgd() -> None:
    config = OptimizerConfig(
        optimizer="lars", weight_decay=DECAY, momentum=0.8, optimizer_args="trust=0.02"
    )
    state = FlatState(network())
    ours = whole_optimizer(config, state)
    own = [view.clone() for view in state.views(state.parameters)]
    velocity = [torch.zeros_like(view) for view in own]
    for step in range(4):
        gradient = gradient_of(state, step)
        for place, grad in enumerate(view.clone() for view in state.views(gradient)):
            w, size = own[place], own[place].norm()
            scale = 0.02 * size / (grad.norm() + DECAY * size) if w.dim() > 1 else 1.0
            velocity[place] = 0.8 * velocity[place] + 0.5 * scale * (grad + DECAY * w)
            own[place] = w - velocity[place]
        ours.update(state.parameters, gradient, 0.5)
    for view, wanted in zip(state.views(state.parameters), own, strict=True):
        assert (view - wanted).abs().max() < 1e-12


def test_lars_moves_a_tensor_of_zeros_as_sgd() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False)).double()
    nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    state = FlatState(model)
    ours = whole_optimizer(OptimizerConfig(optimizer="lars"), state)
    ours.update(state.parameters, torch.ones_like(state.parameters), 0.5)
    assert state.views(state.parameters)[0].tolist() == [[-0.5, -0.5], [-0.5, -0.5]]


def test_groups_reach_rules_on_tensors() -> None:
    config = OptimizerConfig(
        optimizer="lars", momentum=0.0, lr_group=("0=0",), weight_decay_group=("2.bias=0.5",)
    )
    state = FlatState(network())
    before = [view.clone() for view in state.views(state.parameters)]
    whole_optimizer(config, state).update(state.parameters, torch.zeros_like(state.parameters), 0.1)
    after = state.views(state.parameters)
    assert torch.equal(after[0], before[0])
    assert torch.allclose(after[5], before[5] * (1 - 0.1 * 0.5))


def test_the_learning_rate_of_muon_is_the_same_for_every_shape() -> None:
    for shape in ((4, 64), (64, 4), (16, 16)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        made = 0.2 * math.sqrt(max(shape)) * orthogonal(matrix, 5)
        assert 0.1 < float(made.square().mean().sqrt()) < 0.25
