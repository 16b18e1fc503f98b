import pytest
import torch
from torch import nn

from sixfold.compression.codec import sensitivity
from sixfold.compression.codec.sensitivity import BITS_LEVELS, KEPT_LEVELS


def distance(network: nn.Module) -> float:
    """A loss: how far the weights are from what they were."""
    weight = network.get_parameter("0.weight").detach()
    return float((weight - torch.linspace(-1, 2, 200).reshape(10, 20)).square().sum())


@pytest.fixture
def network() -> nn.Module:
    made = nn.Sequential(nn.Linear(20, 10))
    with torch.no_grad():
        made.get_parameter("0.weight").copy_(torch.linspace(-1, 2, 200).reshape(10, 20))
    return made


def test_losses_are_those_of_pruning_and_sharing_one_layer(network: nn.Module) -> None:
    weights = torch.linspace(-1, 2, 200)
    losses = sensitivity.pruning_losses(network, "0.weight", distance)
    assert losses[0] == 0
    assert losses == sorted(losses)
    removed = weights.abs().sort().values[: 200 - round(KEPT_LEVELS[3] * 200)]
    assert losses[3] == pytest.approx(float(removed.square().sum()), rel=1e-5)
    shared = sensitivity.sharing_losses(network, "0.weight", distance, "linear")
    assert len(shared) == len(BITS_LEVELS)
    assert shared[0] > 100 * shared[-1] >= 0
    assert distance(network) == 0  # the network is as it was


def test_levels_within_a_tolerance() -> None:
    losses = [0.1, 0.1, 0.2, 0.5] + [9.0] * 12
    assert sensitivity.kept_within(losses, 0.1) == pytest.approx(KEPT_LEVELS[2])
    assert KEPT_LEVELS[2] > sensitivity.kept_within(losses, 0.2) > KEPT_LEVELS[3]
    assert sensitivity.kept_within(losses, 1e9) == KEPT_LEVELS[-1]
    assert sensitivity.kept_within([0.1] * 16, 0.0) == KEPT_LEVELS[-1]
    assert sensitivity.bits_within([9.0] * 7, 0.1, 0.5) == BITS_LEVELS[-1]


def test_the_whole_keeps_what_was_asked_for_and_hard_layers_keep_more() -> None:
    losses = {
        "hard": [0.1 * 1.8**step for step in range(16)],
        "easy": [0.1 * 1.2**step for step in range(16)],
    }
    sizes = {"hard": 1000, "easy": 9000}
    found = sensitivity.sparsity_for(0.1, losses, sizes)
    kept = sum((1 - found[name]) * sizes[name] for name in sizes)
    assert kept == pytest.approx(1000, rel=1e-3)
    assert found["hard"] < found["easy"]
