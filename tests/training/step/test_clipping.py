"""Clipping against torch's, and the average of weights against its formula."""

import pytest
import torch
from torch import nn

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.averaging import AVERAGE, averaged
from sixfold.training.step.clipping import clip_gradient
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import make_optimizer, whole_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).double()


@pytest.mark.parametrize("largest", [0.5, 1e3])
def test_the_norm_is_that_of_torch(largest: float) -> None:
    model = network()
    state = FlatState(model)
    gradient = torch.zeros_like(state.parameters)
    for parameter, view in zip(model.parameters(), state.views(gradient), strict=True):
        view.copy_(torch.randn(view.shape, dtype=view.dtype))
        parameter.grad = view.clone()
    torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
    clip_gradient(OptimizerConfig(clip_norm=largest), gradient)
    for parameter, view in zip(model.parameters(), state.views(gradient), strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - view).abs().max() < 1e-14


def test_values_are_clipped_before_the_norm_is_taken() -> None:
    gradient = torch.tensor([3.0, -0.5, 0.25])
    clip_gradient(OptimizerConfig(clip_value=0.5), gradient)
    assert gradient.tolist() == [0.5, -0.5, 0.25]
    clip_gradient(OptimizerConfig(clip_value=0.5, clip_norm=0.375), gradient)
    assert gradient.norm().item() == pytest.approx(0.375, rel=1e-5)


def test_a_norm_of_float32_is_added_up_in_float64() -> None:
    gradient = torch.full((1 << 20,), 1e-3)
    gradient[0] = 1e4
    expected = gradient.double().norm().item()
    clip_gradient(OptimizerConfig(clip_norm=1.0), gradient)
    assert gradient[0].item() == pytest.approx(1e4 / (expected + 1e-6), rel=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_the_average_is_its_formula_and_is_taken_only_for_a_while(optimizer: str) -> None:
    model = network()
    state = FlatState(model)
    rule = whole_optimizer(OptimizerConfig(optimizer=optimizer, ema=0.6, clip_norm=1.0), state)
    expected = state.parameters.clone()
    for step in range(8):
        rule.update(state.parameters, torch.randn_like(state.parameters), 0.1)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * state.parameters
        assert (rule.slots[AVERAGE] - expected).abs().max() < 1e-12
    raw = state.parameters.clone()
    with averaged(state, rule) as is_average:
        assert is_average
        for parameter, view in zip(model.parameters(), state.views(expected), strict=True):
            assert (parameter - view).abs().max() < 1e-12
    assert torch.equal(state.parameters, raw)


def test_without_an_average_nothing_is_exchanged() -> None:
    state = FlatState(network())
    before = state.parameters.clone()
    with averaged(state, whole_optimizer(OptimizerConfig(), state)) as is_average:
        assert not is_average
        assert torch.equal(state.parameters, before)


def test_the_average_of_a_slice_is_the_slice_of_the_average() -> None:
    config = OptimizerConfig(ema=0.9)
    weights = torch.arange(8, dtype=torch.float64)
    half = weights[:4].clone()
    rule, part = make_optimizer(config, weights), make_optimizer(config, half)
    for step in range(3):
        gradient = torch.full((8,), step + 1.0, dtype=torch.float64)
        part.update(half, gradient[:4].clone(), 0.1)
        rule.update(weights, gradient, 0.1)
    assert torch.equal(rule.slots[AVERAGE][:4], part.slots[AVERAGE])
