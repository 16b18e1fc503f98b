from pathlib import Path

import pytest
import torch
from torch import nn

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig
from sixfold.training.sparsity import shared
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import make_optimizer

CLUSTERS = {"0.weight": torch.tensor([[0, 1, 2], [2, 1, 0], [1, 1, 3]], dtype=torch.int16)}


def network() -> tuple[FlatState, torch.Tensor]:
    """A small network whose weights share the values -1, 0.5 and 2, and its cluster vector."""
    state = FlatState(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).double())
    values = torch.tensor([0, -1, 0.5, 2], dtype=torch.float64)
    dict(state.named_views(state.parameters))["0.weight"].copy_(values[CLUSTERS["0.weight"].long()])
    return state, shared.cluster_vector(CLUSTERS, state)


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(momentum=0.9, weight_decay=1e-2),
        OptimizerConfig(optimizer="adam", weight_decay=1e-2),
    ],
)
def test_shared_training_is_training_of_the_centroids(config: OptimizerConfig) -> None:
    state, vector = network()
    rule = shared.SharedUpdate(make_optimizer(config, state.parameters), vector)
    # The reference: the centroids as parameters of their own, through which autograd goes.
    centroids = torch.tensor([-1, 0.5, 2], dtype=torch.float64)
    slow = make_optimizer(config, centroids)
    numbers = CLUSTERS["0.weight"].long()
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradient = torch.randn(len(state.parameters), generator=generator, dtype=torch.float64)
        by_weight = dict(state.named_views(gradient))["0.weight"].clone()
        leaf = centroids.clone().requires_grad_()
        weights = torch.cat([torch.zeros(1, dtype=torch.float64), leaf])[numbers]
        (found,) = torch.autograd.grad((weights * by_weight).sum(), leaf)
        slow.update(centroids, found, 0.1)
        rule.update(state.parameters, gradient, 0.1)
        tied = dict(state.named_views(state.parameters))["0.weight"]
        expected = torch.cat([torch.zeros(1, dtype=torch.float64), centroids])[numbers]
        assert torch.allclose(tied, expected, rtol=1e-12)
        shared.check_shared(state, CLUSTERS)


def test_weights_of_their_own_are_trained_as_ever() -> None:
    state, vector = network()
    plain, _ = network()
    plain.parameters.copy_(state.parameters)
    config = OptimizerConfig()
    gradient = torch.randn(len(state.parameters), dtype=torch.float64)
    shared.SharedUpdate(make_optimizer(config, state.parameters), vector).update(
        state.parameters, gradient.clone(), 0.1
    )
    make_optimizer(config, plain.parameters).update(plain.parameters, gradient, 0.1)
    for (name, one), (_, other) in zip(
        state.named_views(state.parameters), plain.named_views(plain.parameters), strict=True
    ):
        assert torch.equal(one, other) == (name != "0.weight")


def test_files_come_back_and_misfits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clusters.safetensors"
    shared.save_clusters(path, CLUSTERS)
    assert torch.equal(shared.load_clusters(path)["0.weight"], CLUSTERS["0.weight"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="cannot be read"):
        shared.load_clusters(path)
    state, _ = network()
    with pytest.raises(ValueError, match="no such tensor"):
        shared.cluster_vector({"9.weight": CLUSTERS["0.weight"]}, state)
    state.parameters.add_(torch.arange(len(state.parameters)))
    with pytest.raises(ValueError, match="not equal"):
        shared.check_shared(state, CLUSTERS)
