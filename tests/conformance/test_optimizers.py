"""Every way to update weights: the bits of serial training, of a resume, and on every strategy."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.marks import quick, quick_pairs

from sixfold.core.errors import UserError
from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

SMALL: dict[str, Any] = {
    "data": "synthetic:90x3x8x8",
    "model": "resnet20",
    "model_args": "depth=8",
    "batch_size": 30,
    "steps": 4,
    "lr": 0.01,
    "weight_decay": 0.01,
}
SLIDE = {"model": "slide", "model_args": ""}
RULES: dict[str, dict[str, Any]] = {
    "nesterov": {"nesterov": True},
    "adamw": {"optimizer": "adamw", "optimizer_args": "betas=(0.9,0.95),eps=1e-6"},
    "nadam in groups": {
        "optimizer": "nadam",
        "lr_group": ("head=10", "*.bias=2"),
        "no_decay": "norms,biases",
    },
    "sgd in groups": {"lr_group": ("head=10",), "no_decay": "norms,biases"},
    "muon": {"optimizer": "muon"},
    "lars": {"optimizer": "lars", "lr": 1.0},
    "clipped and averaged": {
        "optimizer": "adamw",
        "clip_norm": 0.5,
        "clip_value": 0.1,
        "ema": 0.9,
        "schedule": "multistep:1:0.5",
    },
}


@pytest.mark.parametrize("rule", quick(RULES, "clipped and averaged"))
def test_workers_and_resumes_do_not_alter_a_bit(
    configure: Configure, tmp_path: Path, rule: str
) -> None:
    settings = SMALL | RULES[rule]
    serial = train(configure(**settings, out=str(tmp_path / "serial")))
    three = train(configure(**settings, out=str(tmp_path / "three"), workers=3))
    half = str(tmp_path / "half")
    train(configure(**settings | {"steps": 2}, out=half))
    resumed = train(configure(**settings, out=half, resume=True, workers=2))
    for found in (three, resumed):
        assert found["weights_sha256"] == serial["weights_sha256"]
        assert found["test_loss"] == serial["test_loss"]
    assert resumed["steps"] == 4
    assert math.isfinite(serial["test_loss"])


@pytest.mark.parametrize(
    "rule", quick(["nadam in groups", "clipped and averaged"], "clipped and averaged")
)
def test_processes_have_the_bits_of_serial_training(
    configure: Configure, engine_named: Callable[[str], Engine], tmp_path: Path, rule: str
) -> None:
    settings = SMALL | RULES[rule]
    serial = train(configure(**settings, out=str(tmp_path / "serial")))
    found = train(
        configure(**settings, engine="local", workers=2, out=str(tmp_path / "local")),
        engine=engine_named("local"),
    )
    assert found["weights_sha256"] == serial["weights_sha256"]


STRATEGIES: dict[str, dict[str, Any]] = {
    "model_parallel": {"grid": "rows=2"},
    "local_sgd": {"local_steps": 2},
    "hogwild": {},
    "param_server": {"servers": 2},
}


@pytest.mark.parametrize(
    ("rule", "strategy"),
    quick_pairs(
        ["nesterov", "nadam in groups", "clipped and averaged"],
        STRATEGIES,
        ("nesterov", "hogwild"),
        ("nadam in groups", "param_server"),
        ("clipped and averaged", "local_sgd"),
        ("clipped and averaged", "model_parallel"),
    ),
)
def test_every_strategy_uses_any_rule_and_takes_it_up_again(
    configure: Configure, tmp_path: Path, strategy: str, rule: str
) -> None:
    settings = SMALL | RULES[rule] | {"strategy": strategy, "workers": 2} | STRATEGIES[strategy]
    settings |= SLIDE | {"precision": "float64"}
    settings |= {"lr_group": ("classifier.*=10",)} if "lr_group" in settings else {}
    if strategy == "hogwild":
        settings.pop("ema", None)
    out = str(tmp_path / "run")
    train(configure(**settings | {"steps": 2}, out=out))
    found = train(configure(**settings, out=out, resume=True))
    assert math.isfinite(found["test_loss"])
    if strategy == "model_parallel":
        serial = train(
            configure(**settings | {"strategy": "sync", "grid": ""}, out=str(tmp_path / "serial"))
        )
        assert found["test_loss"] == pytest.approx(serial["test_loss"], abs=1e-8)


def test_one_worker_with_servers_has_the_bits_of_serial_training(
    configure: Configure, tmp_path: Path
) -> None:
    settings = SMALL | {"optimizer": "adamw", "no_decay": "biases"} | SLIDE
    settings |= {"clip_norm": 0.5, "ema": 0.9}
    serial = train(configure(**settings, out=str(tmp_path / "serial")))
    found = train(configure(**settings, strategy="param_server", out=str(tmp_path / "servers")))
    assert found["weights_sha256"] == serial["weights_sha256"]


def test_the_average_is_evaluated_and_saved_and_the_raw_weights_beside(
    configure: Configure, tmp_path: Path
) -> None:
    settings = SMALL | SLIDE
    plain = train(configure(**settings, out=str(tmp_path / "plain")))
    found = train(configure(**settings, ema=0.9, out=str(tmp_path / "run")))
    assert found["raw_weights_sha256"] == plain["weights_sha256"]
    assert found["weights_sha256"] != plain["weights_sha256"]
    assert found["averaged_weights"] is True
    assert "averaged_weights" not in plain
    raw = load_file(tmp_path / "run" / found["raw_weights"])
    weights = load_file(tmp_path / "run" / "model.safetensors")
    step = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    saved = load_file(step)
    name = "features.0.weight"
    assert torch.equal(raw[name], saved[f"model.{name}"])
    assert torch.equal(weights[name], saved[f"optimizer.average.{name}"])
    again = train(
        configure(**settings | {"lr": 0.0}, weights=str(tmp_path / "run"), out=str(tmp_path / "on"))
    )
    assert again["test_loss"] == found["test_loss"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "hogwild"}, "not with --strategy hogwild"),
        ({"strategy": "local_sgd", "aggregation": "nesterov"}, "only for one group"),
        ({"shared": "clusters"}, "not with --shared"),
    ],
)
def test_what_an_average_does_not_go_with(
    configure: Configure, settings: dict[str, Any], said: str
) -> None:
    assert any(said in line for line in configure(ema=0.9, **settings).problems())


def test_patterns_are_held_against_the_network_before_anything_is_written(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(**SMALL, lr_group=("haed=2",), out=str(tmp_path / "run"))
    with pytest.raises(
        UserError, match="haed=2: matches no trainable parameter: did you mean head"
    ):
        train(config)
    assert not (tmp_path / "run").exists()
