"""No update revives a removed weight, and the kept ones move as if nothing were there."""

import pytest
import torch
from torch import nn

from sixfold.training.config import OptimizerConfig
from sixfold.training.sparsity import MaskedUpdate, mask_vector, zero_masked
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.rules import RULES as TABLE

RULES = [
    OptimizerConfig(momentum=0.9, weight_decay=0.1),
    OptimizerConfig(momentum=0.0, weight_decay=0.1),
    OptimizerConfig(optimizer="adam", weight_decay=0.1),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize("config", RULES)
def test_masked_training_is_training_that_multiplies_by_the_mask(config: OptimizerConfig) -> None:
    """The slow way multiplies the weights after every update; kept weights have the same bits."""
    mask = {"0.weight": torch.rand(5, 6) < 0.5}
    fast, slow = FlatState(network()), FlatState(network())
    vector = mask_vector(mask, fast)
    zero_masked(fast, vector)
    zero_masked(slow, vector)
    rule = MaskedUpdate(make_optimizer(config, fast.parameters), vector)
    plain = make_optimizer(config, slow.parameters)
    for step in range(20):
        torch.manual_seed(step)
        images = torch.randn(8, 6, dtype=torch.float64)
        for state in (fast, slow):
            gradient = torch.zeros_like(state.parameters)
            loss = state.model(images).square().sum()
            found = torch.autograd.grad(loss, list(state.trainable))
            for view, value in zip(state.views(gradient), found, strict=True):
                view.copy_(value)
            (rule if state is fast else plain).update(state.parameters, gradient, 0.01)
        slow.parameters.mul_(vector)
        assert torch.equal(fast.parameters, slow.parameters)
        assert torch.equal(fast.views(fast.parameters)[0] != 0, mask["0.weight"])
    for slot in rule.slots.values():
        assert not fast.views(slot)[0][~mask["0.weight"]].any()
    assert rule.updates == plain.updates == 20


def test_a_mask_of_another_network_is_refused() -> None:
    state = FlatState(network())
    with pytest.raises(ValueError, match="no such tensor"):
        mask_vector({"9.weight": torch.ones(1, dtype=torch.bool)}, state)
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        mask_vector({"0.weight": torch.ones(1, dtype=torch.bool)}, state)


def test_removing_a_weight_that_is_no_number_leaves_zero() -> None:
    state = FlatState(network())
    with torch.no_grad():
        state.views(state.parameters)[0][0, 0] = float("nan")
    keep = torch.ones(5, 6, dtype=torch.bool)
    keep[0, 0] = False
    zero_masked(state, mask_vector({"0.weight": keep}, state))
    assert state.views(state.parameters)[0][0, 0] == 0


@pytest.mark.parametrize("name", [n for n, rule in TABLE.items() if rule.torch_class])
def test_classes_of_torch_leave_removed_weights_at_zero(name: str) -> None:
    torch.manual_seed(0)
    weights = torch.randn(40, dtype=torch.float64)
    vector = (torch.arange(40) % 3 > 0).double()
    weights[vector == 0] = 0
    config = OptimizerConfig(optimizer=name, weight_decay=0.0 if name == "rprop" else 0.1)
    rule = MaskedUpdate(make_optimizer(config, weights), vector)
    for _ in range(4):
        rule.update(weights, torch.randn(40, dtype=torch.float64), 0.01)
    assert (weights[vector == 0] == 0).all()
    assert (weights[vector == 1] != 0).all()
