"""Frozen parameters and norms keep their bits, whatever trains the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.marks import some
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
    some(
        [
            {"strategy": "sync"},
            {"strategy": "sync", "batch_norm": "sync"},
            {"strategy": "sync", "optimizer": "muon"},
            {"strategy": "local_sgd", "local_steps": 2},
            {"strategy": "hogwild"},
            {"strategy": "param_server"},
            {"strategy": "model_parallel", "grid": "rows=2"},
        ],
        3,
    ),
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


THAW: dict[str, Any] = {
    **{name: value for name, value in SETTINGS.items() if name != "steps"},
    "max_images": 96,  # 4 steps an epoch
    "unfreeze": ("stage1.*=0.5", "stem=1"),  # before steps 2 and 4
    "steps": 6,
}


@pytest.mark.full
@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": "adam", "lr": 0.01, "ema": 0.5},
        pytest.param({"strategy": "model_parallel", "grid": "rows=2"}, marks=pytest.mark.full),
    ],
    ids=["sync", "model_parallel"],
)
def test_unfreezing_does_not_depend_on_workers_or_on_when_a_run_was_stopped(
    more: dict[str, Any], configure: Configure, tmp_path: Path
) -> None:
    settings = {**THAW, **more}
    one = train(configure(out=str(tmp_path / "one"), workers=2, **settings))
    sha256 = one["weights_sha256"]
    assert one["trainable_parameters"] == one["parameters"]
    for stop in (1, 3):
        out = str(tmp_path / f"stopped-{stop}")
        train(configure(out=out, workers=2, **{**settings, "steps": stop}))
        again = train(configure(out=out, workers=2, resume=True, **settings))
        assert again["weights_sha256"] == sha256, stop
    if "strategy" not in more:
        alone = train(configure(out=str(tmp_path / "alone"), workers=1, **settings))
        assert alone["weights_sha256"] == sha256


@pytest.mark.full
def test_unfreezing_is_a_training_after_a_training(configure: Configure, tmp_path: Path) -> None:
    """Without state of the update rule, the stages may be made one by one from weights."""
    settings = {**THAW, "momentum": 0.0}
    whole = train(configure(out=str(tmp_path / "whole"), save_at_steps=("2", "4"), **settings))
    weights = None
    for step, end, frozen in ((0, 2, "stem,stage1.*"), (2, 4, "stem"), (4, 6, "")):
        stage = {**settings, "unfreeze": (), "freeze": frozen, "steps": end}
        stage |= {"start_step": step, "weights": weights, "out": str(tmp_path / f"{end}")}
        last = train(configure(**stage))
        weights = str(tmp_path / f"{end}" / "model.safetensors")
    assert last["weights_sha256"] == whole["weights_sha256"]
    before = initial_network(configure(**settings), datasets.open_data(configure(**settings).data))
    for step, moved in ((2, ()), (4, ("stage1.",))):
        found = load_file(tmp_path / "whole" / "snapshots" / f"step-{step:09d}.safetensors")
        for name, tensor in before.state_dict().items():
            if name.startswith(("stem.", "stage1.")):
                same = torch.equal(tensor, found[f"model.{name}"])
                assert same != name.startswith(moved or "-"), (step, name)


def test_what_it_does_not_go_with_is_refused(configure: Configure) -> None:
    said = configure(freeze="head,,x", mask="m", strategy="local_sgd", align=True).problems()
    assert sum("--freeze" in line for line in said) == 3
    said = configure(unfreeze=("head=2", "x=y"), strategy="local_sgd").problems()
    assert any("nothing is frozen" in line for line in said)
    assert any("--unfreeze x=y: expected PATTERN=VALUE" in line for line in said)
    said = configure(freeze="head", unfreeze=("head=2",), strategy="local_sgd").problems()
    assert any("only with --strategy sync and model_parallel" in line for line in said)
    with pytest.raises(UserError, match=r"--unfreeze head: matches no parameter of --freeze stem"):
        freeze(Net(), OptimizerConfig(freeze="stem", unfreeze=("head=1",)))
