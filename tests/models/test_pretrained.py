"""Public weights under torchvision's names compute in the zoo's networks what they did there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.marks import some
from tests.models import torchvision_reference as reference
from torch import nn

from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.models.pretrained import from_torchvision
from sixfold.training.sparsity.initialization import put_weights, read_weights
from sixfold.training.step.flat import FlatState

CASES: list[tuple[str, str, int, Callable[[], nn.Module]]] = [
    (
        "resnet18",
        "stem=imagenet",
        64,
        lambda: reference.ResNet(reference.BasicBlock, (2, 2, 2, 2), 7),
    ),
    (
        "resnet50",
        "stem=imagenet",
        64,
        lambda: reference.ResNet(reference.Bottleneck, (3, 4, 6, 3), 7),
    ),
    ("vgg16", "form=imagenet", 32, lambda: reference.vgg16(512, 7, batch_norm=False)),
    (
        "vgg16",
        "form=imagenet,batch_norm=true",
        32,
        lambda: reference.vgg16(512, 7, batch_norm=True),
    ),
    ("alexnet", "form=torchvision", 63, lambda: reference.alexnet(256, 7)),
    ("mobilenet_v2", "total_stride=32", 64, lambda: reference.MobileNetV2(7)),
]


def made(network: nn.Module) -> nn.Module:
    """With statistics and biases that a fresh network has not."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "arguments", "side", "make"),
    some(CASES, 5, rows=True),
    ids=[f"{c[0]}-{c[1]}" for c in CASES],
)
def test_scores_are_the_same(
    name: str, arguments: str, side: int, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    theirs = made(make())
    # As the older public files have it, which know no numbers of batches.
    old = {n: t for n, t in theirs.state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "w.pth")
    config = ModelConfig(model=name, model_args=arguments)
    state = FlatState(build(config, shape=(3, side, side), classes=7, seed=1))
    told: list[str] = []
    put_weights(read_weights(tmp_path / "w.pth"), state.model, "w.pth", told.append)
    assert "torchvision's names" in told[0]
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected, found = theirs(images), state.model.eval()(images)
    assert expected.std() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_a_head_of_other_classes_is_new_under_these_names_too() -> None:
    theirs = reference.ResNet(reference.BasicBlock, (2, 2, 2, 2), 1000)
    network = build(
        ModelConfig(model="resnet18", model_args="stem=imagenet"),
        shape=(3, 64, 64),
        classes=5,
        seed=0,
    )
    told: list[str] = []
    put_weights(theirs.state_dict(), network, "w.pth", told.append)
    assert "head.2 has 1000 outputs, here 5" in told[0]
    assert torch.equal(network.state_dict()["stem.0.weight"], theirs.conv1.weight)


def test_other_names_are_left_alone() -> None:
    own = ["stem.0.weight", "head.2.bias"]
    assert from_torchvision(["conv1.weight", "fc.bias", "aux.weight"], own) == {}
    assert from_torchvision(["conv1.weight"], own) == {}
