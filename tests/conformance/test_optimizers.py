"""Every way to update weights: the bits of serial training, of a resume, and on every strategy."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

SMALL: dict[str, Any] = {
    "data": "synthetic:90x3x8x8",
    "model": "resnet20",
    "batch_size": 30,
    "steps": 4,
    "lr": 0.01,
    "weight_decay": 0.01,
}
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
}


@pytest.mark.parametrize("rule", RULES)
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


@pytest.mark.parametrize("rule", ["adamw", "nadam in groups"])
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


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rule", ["nesterov", "nadam in groups"])
def test_every_strategy_uses_any_rule_and_takes_it_up_again(
    configure: Configure, tmp_path: Path, strategy: str, rule: str
) -> None:
    settings = SMALL | RULES[rule] | {"strategy": strategy, "workers": 2} | STRATEGIES[strategy]
    settings |= {"model": "slide", "precision": "float64"}
    settings |= {"lr_group": ("classifier.*=10",)} if "lr_group" in settings else {}
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
    settings = SMALL | {"optimizer": "adamw", "model": "slide", "no_decay": "biases"}
    serial = train(configure(**settings, out=str(tmp_path / "serial")))
    found = train(configure(**settings, strategy="param_server", out=str(tmp_path / "servers")))
    assert found["weights_sha256"] == serial["weights_sha256"]


def test_patterns_are_held_against_the_network_before_anything_is_written(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(**SMALL, lr_group=("haed=2",), out=str(tmp_path / "run"))
    with pytest.raises(
        UserError, match="haed=2: matches no trainable parameter: did you mean head"
    ):
        train(config)
    assert not (tmp_path / "run").exists()
