"""A worker is killed in the middle of a training on Spark: nothing is lost, not a bit."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import RankLostError
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

SETTINGS: dict[str, Any] = {
    "model": "slide",
    "data": "synthetic:400x3x8x8",
    "batch_size": 20,
    "steps": 800,
    "checkpoint_every": 50,
    "workers": 2,
    "lr": 0.001,
}


class Killer:
    """Listens to a training, and kills a rank's process in the middle, so many times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.pids: dict[int, int] = {}

    def __call__(self, event: Any) -> None:
        if event["kind"] == "rank":
            self.pids[event["rank"]] = event["pid"]
        elif event["kind"] == "progress" and event["step"] > 60 and self.left and self.pids:
            self.left -= 1
            os.kill(self.pids[1], signal.SIGKILL)
            self.pids.clear()


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize(
    "master", ["spark_local", pytest.param("spark_cluster", marks=pytest.mark.full)]
)
def test_a_killed_python_worker_costs_time_and_nothing_else(
    configure: Configure, tmp_path: Path, master: str, request: pytest.FixtureRequest
) -> None:
    calm = train(configure(out=str(tmp_path / "calm"), **SETTINGS))
    engine = request.getfixturevalue(master)
    settings = {**SETTINGS, "engine": "spark", "out": str(tmp_path / "run")}
    found = train(configure(**settings), engine=engine, on_event=Killer(1))
    assert found["restarts"] == 1
    assert found["weights_sha256"] == calm["weights_sha256"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if "loss" in line]
    assert steps == list(range(1, SETTINGS["steps"] + 1))


@pytest.mark.full
@pytest.mark.spark
def test_more_deaths_than_restarts_end_the_run_with_the_facts(
    configure: Configure, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue("spark_local")
    settings = {**SETTINGS, "steps": 100_000, "engine": "spark", "max_restarts": 1}
    config = configure(out=str(tmp_path / "run"), **settings)
    with pytest.raises(RankLostError, match="died"):
        train(config, engine=engine, on_event=Killer(2))
    assert list((tmp_path / "run" / "checkpoints").iterdir())
