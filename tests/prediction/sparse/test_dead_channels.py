"""A network without its dead channels gives the same scores, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.prediction.sparse.dead_channels import remove_dead_channels

SHAPE = (3, 32, 32)


def padded() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 16 * 16, 7),
        nn.ReLU(),
        nn.Linear(7, 4),
    )


def of_zoo(model: str) -> Callable[[], nn.Module]:
    return lambda: build(ModelConfig(model=model), shape=SHAPE, classes=10, seed=0)


def kill(network: nn.Module, *, silent: bool) -> None:
    """Zero the weights that make, or use, every third map; shake everything else."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data = torch.rand(tensor.shape, generator=generator).to(tensor.dtype) + 0.5
        if isinstance(module, nn.Conv2d | nn.Linear):
            if module.bias is not None:
                module.bias.data.normal_(generator=generator)
            if silent:
                module.weight.data[::3] = 0
            elif isinstance(module, nn.Conv2d):
                module.weight.data[:, ::3] = 0


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize(
    "make", [padded, of_zoo("lenet5"), of_zoo("lenet300"), of_zoo("resnet20"), of_zoo("conv2")]
)
def test_scores_stay_the_same(make: Callable[[], nn.Module], silent: bool) -> None:
    network = make().double().eval()
    kill(network, silent=silent)
    images = torch.randn(5, *SHAPE, dtype=torch.float64)
    with torch.inference_mode():
        expected = network(images)
        before = sum(p.numel() for p in network.parameters())
        removed = remove_dead_channels(network, SHAPE)
        found = network(images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    after = sum(p.numel() for p in network.parameters())
    assert (after < before) == (removed > 0)
    if silent and make is padded:
        assert removed > 0


def test_a_map_that_is_not_constant_at_the_border_stays() -> None:
    first = nn.Conv2d(3, 4, 1)
    network = nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).eval()
    first.weight.data[:2] = 0
    assert first.bias is not None
    first.bias.data[:2] = torch.tensor([1.0, -1.0])  # behind ReLU: 1 and 0
    assert remove_dead_channels(network, SHAPE) == 1
    assert first.out_channels == 3


def test_nothing_dead_changes_nothing() -> None:
    network = of_zoo("lenet5")().eval()
    assert remove_dead_channels(network, SHAPE) == 0
