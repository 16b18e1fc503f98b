"""The same weights from the same seed, and nothing else touched."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sixfold.core.errors import UserError
from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.models.zoo import ZOO

Write = Callable[..., Path]

DRAWS = """
import random, numpy, torch
from torch import nn
def make(classes):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    with torch.no_grad():
        net[1].bias[0] = numpy.random.rand()
        net[1].bias[1] = random.random()
    return net
def lazy(classes):
    return nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.Flatten(), nn.LazyLinear(classes))
def too_deep(classes):
    return nn.Sequential(nn.LazyConv2d(4, 5), nn.Flatten(), nn.LazyLinear(classes))
"""


def sha(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def own(factory: str, seed: int = 0) -> nn.Module:
    return build(ModelConfig(model=f"draws:{factory}"), shape=(3, 2, 2), classes=3, seed=seed)


def small(name: str, seed: int = 0) -> nn.Module:
    return build(ModelConfig(model=name), shape=(1, 64, 64), classes=3, seed=seed)


LARGE = ("conv2", "conv4", "resnet50", "vgg16", "alexnet")


@pytest.mark.parametrize("name", [name for name in ZOO if name not in LARGE])
def test_weights_follow_from_the_seed(name: str) -> None:
    torch.rand(3)
    first, again, other = small(name), small(name), small(name, seed=1)
    assert sha(first) == sha(again) != sha(other)
    assert first.training


def test_weights_are_those_of_the_factory_after_manual_seed() -> None:
    built = build(ModelConfig(model="slide"), shape=(3, 8, 8), classes=4, seed=17)
    with torch.random.fork_rng():
        torch.manual_seed(17)
        expected = ZOO["slide"]((3, 8, 8), 4)
    assert sha(built) == sha(expected)


def test_the_callers_random_states_are_untouched(write: Write) -> None:
    write("draws.py", DRAWS)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    own("make")
    own("lazy")
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected


def test_every_source_of_randomness_is_seeded_in_another_process_too(write: Write) -> None:
    write("draws.py", DRAWS)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_building as t;"
        "print(t.sha(t.own('make', 5)), t.sha(t.own('lazy', 5)))"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, here]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [sha(own("make", 5)), sha(own("lazy", 5))]
    assert sha(own("make", 5)) != sha(own("make", 6))


def test_lazy_layers_come_with_their_weights(write: Write) -> None:
    write("draws.py", DRAWS)
    network = own("lazy")
    assert network.training
    assert sum(parameter.numel() for parameter in network.parameters()) == 4 * 28 + 3 * 17
    with pytest.raises(UserError, match=r"too_deep cannot take 3x2x2 images: layer '0' .* 2x2 map"):
        own("too_deep")


def test_the_default_device_of_the_caller_does_not_matter() -> None:
    with torch.device("meta"):
        network = build(ModelConfig(model="slide"), shape=(3, 8, 8), classes=4, seed=17)
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_images_too_small_for_the_zoo_are_refused() -> None:
    with pytest.raises(UserError, match=r"lenet5 cannot take 1x8x8 images: layer 'features\.2'"):
        build(ModelConfig(model="lenet5"), shape=(1, 8, 8), classes=10, seed=0)
