"""Update rules against torch.optim."""

from typing import Any

import pytest
import torch

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.optimizer import make_optimizer

CASES = [
    (OptimizerConfig(momentum=0.0), torch.optim.SGD, {}),
    (OptimizerConfig(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    (
        OptimizerConfig(momentum=0.5, weight_decay=0.1),
        torch.optim.SGD,
        {"momentum": 0.5, "weight_decay": 0.1},
    ),
    (
        OptimizerConfig(momentum=0.8, weight_decay=0.1, nesterov=True),
        torch.optim.SGD,
        {"momentum": 0.8, "weight_decay": 0.1, "nesterov": True},
    ),
    (OptimizerConfig(optimizer="adam"), torch.optim.Adam, {}),
    (
        OptimizerConfig(optimizer="adam", optimizer_args="betas=(0.8,0.95),eps=1e-6"),
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "eps": 1e-6},
    ),
    (
        OptimizerConfig(optimizer="adam", weight_decay=0.1),
        torch.optim.Adam,
        {"weight_decay": 0.1},
    ),
]


@pytest.mark.parametrize(("config", "peer", "options"), CASES)
def test_updates_are_those_of_torch(
    config: OptimizerConfig, peer: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(50, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(weights.clone())
    theirs = peer([parameter], lr=0.05, **options)  # type: ignore[call-arg]
    ours = make_optimizer(config, weights)
    for step in range(7):
        gradient = torch.randn(50, generator=generator, dtype=torch.float64)
        for group in theirs.param_groups:
            group["lr"] = 0.05 / (step + 1)
        parameter.grad = gradient.clone()
        theirs.step()
        ours.update(weights, gradient, 0.05 / (step + 1))
        assert (weights - parameter.detach()).abs().max() < 1e-12
    assert ours.updates == 7
