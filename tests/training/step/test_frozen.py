"""Frozen parameters and norms keep their bits, whatever trains the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig, TrainConfig
from sixfold.training.network import initial_network
from sixfold.training.run import train
from sixfold.training.step.flat import FlatState
from sixfold.training.step.frozen import freeze

Configure = Callable[..., TrainConfig]

SETTINGS: dict[str, Any] = {
    "model": "resnet20",
    "model_args": "depth=8",
    "freeze": "stem,stage1.*",
    "momentum": 0.9,
    "weight_decay": 0.1,
    "lr": 0.1,
    "steps": 4,
    "batch_size": 24,  # shards of three images, by which sums of statistics would be rounded
    "checkpoint_every": 2,
}


class Net(nn.Module):
    """A stem with two norms, and a head of the same weights twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
        )
        self.head = nn.Linear(4, 4)
        self.again = self.head


def trainable(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad}


def test_patterns_mean_parameters_modules_and_norms() -> None:
    config = OptimizerConfig(freeze="stem, *.bias")
    network = freeze(Net(), config)
    assert trainable(network) == {"head.weight"}
    state = FlatState(network)
    assert len(state.still_norms) == 2
    assert len(state.buffers) == 0
    partly = FlatState(freeze(Net(), OptimizerConfig(freeze="stem.1.bias,again")))
    assert trainable(partly.model) == {"stem.0.weight", "stem.0.bias", "stem.1.weight"}
    assert not partly.still_norms
    state.train()
    assert [module.training for module in network.stem] == [True, False, False]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("sten,head", "--freeze sten: matches no trainable parameter: did you mean"),
        ("*", "leaves no"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(pattern: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("*", r"\*")) as caught:
        freeze(Net(), OptimizerConfig(freeze=pattern))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "strategy",
    [
        {"strategy": "sync"},
        {"strategy": "sync", "batch_norm": "sync"},
        {"strategy": "sync", "optimizer": "muon"},
        {"strategy": "local_sgd", "local_steps": 2},
        {"strategy": "hogwild"},
        {"strategy": "param_server"},
        {"strategy": "model_parallel", "grid": "rows=2"},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_frozen_tensors_keep_their_bits(
    strategy: dict[str, Any], configure: Configure, tmp_path: Path
) -> None:
    config = configure(out=str(tmp_path / "run"), workers=2, **SETTINGS, **strategy)
    result = train(config)
    before = initial_network(config, datasets.open_data(config.data)).state_dict()
    after = load_file(tmp_path / "run" / "model.safetensors")
    for name, tensor in before.items():
        frozen = name.startswith(("stem.", "stage1."))
        assert torch.equal(tensor, after[name]) == frozen, name
    assert result["trainable_parameters"] < result["parameters"]


def test_the_bits_do_not_depend_on_workers_or_a_resume(
    configure: Configure, tmp_path: Path
) -> None:
    one = train(configure(out=str(tmp_path / "one"), **SETTINGS))
    train(configure(out=str(tmp_path / "two"), workers=3, **{**SETTINGS, "steps": 2}))
    two = train(configure(out=str(tmp_path / "two"), workers=2, resume=True, **SETTINGS))
    assert one["weights_sha256"] == two["weights_sha256"]


def test_what_it_does_not_go_with_is_refused(configure: Configure) -> None:
    said = configure(freeze="head,,x", mask="m", strategy="local_sgd", align=True).problems()
    assert sum("--freeze" in line for line in said) == 3
