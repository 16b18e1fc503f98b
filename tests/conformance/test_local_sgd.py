"""Local SGD promises the same bits on every engine, for a given number of workers."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.marks import quick

from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

LOCAL: dict[str, Any] = {
    "strategy": "local_sgd",
    "local_steps": 3,
    "workers": 2,
    "batch_size": 10,
    "steps": 8,
    "data": "synthetic:64x3x8x8",
}
CASES: dict[str, dict[str, Any]] = {
    "mean": {"aggregation": "mean", "augment": "crop:2,flip", "post_local": 0.5},
    "max_delta": {"aggregation": "max_delta", "optimizer": "adam", "lr": 0.001},
    "map_delta": {"aggregation": "map_delta", "model": "resnet20", "model_args": "depth=8"},
    "best": {"aggregation": "best", "validation": 0.2},
    "genetic": {"aggregation": "genetic", "validation": 0.2, "population": 4, "generations": 1},
    "nesterov": {"aggregation": "nesterov", "groups": 2, "swap_every": 1, "workers": 3},
    "aligned": {"align": True, "compare_serial": True},
    "depthwise": {
        "align": True,
        "model": "mobilenet_v2",
        "model_args": "width=0.25",
        "data": "synthetic:64x3x16x16",
        "steps": 4,
    },
}


def check(configure: Configure, engine: Engine, folder: Path, case: str) -> None:
    settings = LOCAL | CASES[case]
    expected = train(configure(out=str(folder / "inline"), **settings))
    settings |= {"engine": engine.name, "out": str(folder / "run")}
    found = train(configure(**settings), engine=engine)
    for name in ("weights_sha256", "test_loss", "test_accuracy", "steps", "images"):
        assert found[name] == expected[name], name
    assert found.get("serial_test_loss") == expected.get("serial_test_loss")


@pytest.mark.parametrize("case", quick(CASES, "mean"))
def test_local_has_the_bits_of_inline(
    configure: Configure, engine_named: Callable[[str], Engine], tmp_path: Path, case: str
) -> None:
    check(configure, engine_named("local"), tmp_path, case)


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize(
    ("case", "master"),
    [
        (case, master)
        for case in CASES
        if CASES[case].get("workers", 2) == 2
        for master in ("spark_local", "spark_cluster")
    ],
)
def test_spark_has_the_bits_of_inline(
    configure: Configure,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    case: str,
    master: str,
) -> None:
    check(configure, request.getfixturevalue(master), tmp_path, case)


@pytest.mark.full
def test_a_killed_rank_costs_time_and_nothing_else(
    configure: Configure, engine_named: Callable[[str], Engine], tmp_path: Path
) -> None:
    settings = LOCAL | {"steps": 300, "local_steps": 20, "checkpoint_every": 50}
    settings |= {"evaluate_every": 10.0, "lr": 0.001}
    calm = train(configure(out=str(tmp_path / "calm"), **settings))
    pids: dict[int, int] = {}
    killed: list[int] = []

    def kill(event: Any) -> None:
        if event["kind"] == "rank":
            pids[event["rank"]] = event["pid"]
        elif event["kind"] == "evaluation" and not killed:
            killed.append(event["step"])
            os.kill(pids[1], signal.SIGKILL)

    settings |= {"engine": "local", "max_restarts": 1, "out": str(tmp_path / "run")}
    found = train(configure(**settings), engine=engine_named("local"), on_event=kill)
    assert killed
    assert found["restarts"] == 1
    assert found["weights_sha256"] == calm["weights_sha256"]
