"""Trainings with parameter servers, from the launcher's side: what they promise, and deaths."""

import json
import os
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import NonFiniteLossError, UserError
from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train, training_problems
from sixfold.training.strategies.param_server import run as launcher

Configure = Callable[..., TrainConfig]


@pytest.fixture
def asynchronous(configure: Configure) -> Configure:
    """Settings of a small training with parameter servers."""

    def make(**changes: Any) -> TrainConfig:
        return configure(**{"strategy": "param_server", "lr": 0.02} | changes)

    return make


def steps_of(out: Path) -> list[int]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


NORMED: dict[str, Any] = {"model": "resnet20", "model_args": "depth=8", "batch_size": 32}


@pytest.mark.parametrize(
    ("servers", "case"),
    [
        (1, {}),
        (3, {"optimizer": "adam", "lr": 0.001, "batch_size": 37}),
        (2, NORMED | {"steps": 3}),
        (2, NORMED | {"steps": 2, "batch_norm": "sync"}),
        (2, {"precision": "float64", "augment": "crop:2,flip", "schedule": "cosine"}),
    ],
)
def test_one_worker_has_the_bits_of_serial_training(
    configure: Configure, tmp_path: Path, servers: int, case: dict[str, Any]
) -> None:
    serial = train(configure(out=str(tmp_path / "serial"), **case))
    config = configure(out=str(tmp_path / "run"), strategy="param_server", servers=servers, **case)
    found = train(config)
    for name in ("weights_sha256", "test_loss", "test_accuracy", "steps", "images"):
        assert found[name] == serial[name], name
    assert found["staleness"] == {"0": servers * found["steps"]}


def test_workers_that_take_turns_are_stale_and_leave_everything_in_the_run_directory(
    asynchronous: Configure, tmp_path: Path
) -> None:
    def run(name: str) -> dict[str, Any]:
        config = asynchronous(
            out=str(tmp_path / name), workers=3, servers=2, steps=14, validation=0.2,
            evaluate_every=1.0,
        )  # fmt: skip
        return train(config)

    result, out = run("one"), tmp_path / "one"
    assert run("two")["weights_sha256"] == result["weights_sha256"]
    assert result["strategy"] == "param_server"
    assert sum(result["staleness"].values()) == 2 * 14
    assert result["mean_staleness"] > 1
    assert result["restarts"] == result["lost_updates"] == 0
    assert result["steps"] == 14
    assert result["images"] == 3 * 160 + 80
    assert steps_of(out) == list(range(1, 15))
    assert {"config.json", "model.safetensors", "result.json", "report.html"} <= {
        path.name for path in out.iterdir()
    }
    evaluated = [
        json.loads(line)["part"]
        for line in (out / "metrics.jsonl").read_text().splitlines()
        if "eval_loss" in line
    ]
    assert evaluated.count("validation") >= 3
    assert evaluated.count("test") == 1
    assert result["best_validation_accuracy"] > 0


def test_the_bytes_of_a_step_follow_the_formula(asynchronous: Configure, tmp_path: Path) -> None:
    config = asynchronous(out=str(tmp_path / "run"), steps=8, workers=2, **NORMED)
    result = train(config)
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "run" / "model.safetensors")
    buffers = sum(t.nbytes for name, t in tensors.items() if "running" in name)
    weights = sum(t.nbytes for name, t in tensors.items() if "running" not in name)
    # Gradient and weights; buffers before and after, and pulled; a pull more for each lease.
    least, most = 2 * weights + 3 * buffers, 3.3 * weights + 4.3 * buffers
    assert least < result["bytes_per_step"] < most


def test_no_staleness_allowed_means_that_gradients_are_made_again(
    asynchronous: Configure, tmp_path: Path
) -> None:
    result = train(asynchronous(out=str(tmp_path / "run"), workers=3, steps=9, staleness=0))
    assert result["staleness"] == {"0": 9}
    assert result["refused_pushes"]["stale"] > 0
    assert result["steps"] == 9


class Interrupt:
    """Presses Ctrl-C once, when so many steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "evaluation" and event["step"] >= self.step > 0:
            self.step = 0
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    asynchronous: Configure, configure: Configure, tmp_path: Path
) -> None:
    settings = {"steps": 14, "evaluate_every": 1.0, "servers": 2}
    serial = train(configure(out=str(tmp_path / "serial"), steps=14, lr=0.02))
    out = str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(asynchronous(out=out, **settings), on_event=Interrupt(5))
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    resumed = train(asynchronous(out=out, resume=True, **settings))
    assert steps_of(tmp_path / "run") == list(range(1, 15))
    # One worker: the bits of serial training, interrupted or not.
    assert resumed["weights_sha256"] == serial["weights_sha256"]
    assert resumed["images"] == serial["images"]


def test_a_loss_that_is_no_number_ends_the_run(asynchronous: Configure, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="smaller --lr"):
        train(asynchronous(out=str(tmp_path / "run"), lr=1e30, workers=2))


def test_wrong_settings_are_told_all_at_once(configure: Configure) -> None:
    def told(**settings: Any) -> str:
        return "\n".join(training_problems(configure(**settings)))

    found = told(strategy="param_server", servers=0, staleness=-1, save_at_steps=("3",))
    assert "--servers 0: must be at least 1" in found
    assert "--staleness -1: must be at least 0" in found
    assert "--save-at-steps" in found
    assert "--servers 2: only for --strategy param_server" in told(servers=2)


def test_another_number_of_servers_cannot_take_up_a_checkpoint(
    asynchronous: Configure, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(asynchronous(out=out, evaluate_every=0.5), on_event=Interrupt(1))
    with pytest.raises(UserError, match="--servers: 1 -> 2"):
        train(asynchronous(out=out, evaluate_every=0.5, servers=2, resume=True))


class Killer:
    """Kills processes of a training: workers and servers at given steps, once each.

    Attributes:
        killed: how many of either are dead.
    """

    def __init__(
        self, workers_at: list[int], servers_at: list[int], number: int = signal.SIGKILL
    ) -> None:
        self._signal = number
        self._at = {"rank": workers_at, "server": servers_at}
        self._pids: dict[str, dict[int, int]] = {"rank": {}, "server": {}}
        self.killed = {"rank": 0, "server": 0}

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind = str(event["kind"])
        if kind in self._pids and "pid" in event:
            self._pids[kind][event[kind]] = event["pid"]
        if kind == "evaluation":
            for role, steps in self._at.items():
                if steps and event["step"] >= steps[0] and self._pids[role]:
                    steps.pop(0)
                    number = self.killed[role] % len(self._pids[role])
                    os.kill(self._pids[role].pop(number), self._signal)
                    self.killed[role] += 1


def check_survived(result: dict[str, Any], out: Path, steps: int) -> None:
    assert result["steps"] == steps
    assert result["images"] == steps * 40
    ages = {int(age): count for age, count in result["staleness"].items()}
    # The history that survives holds every step once on each of the two servers.
    assert sum(ages.values()) == 2 * steps
    assert max(ages) <= result["staleness_bound"]
    logged = steps_of(out)
    assert logged == sorted(set(logged))
    assert logged[-1] == steps


@pytest.mark.full
def test_processes_survive_the_death_of_workers_and_of_a_server(
    asynchronous: Configure, local_engine: Engine, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    config = asynchronous(
        out=str(out), engine="local", workers=2, servers=2, steps=600, evaluate_every=4.0,
        data="synthetic:800x3x8x8", lr=0.005,
    )  # fmt: skip
    killer = Killer(workers_at=[100, 260], servers_at=[180])
    result = train(config, engine=local_engine, on_event=killer)
    assert killer.killed == {"rank": 2, "server": 1}
    assert result["worker_losses"] == 2
    assert [loss["server"] for loss in result["server_losses"]] == [0]
    assert result["restarts"] == 3
    assert result["lost_updates"] == result["server_losses"][0]["lost_updates"]
    check_survived(result, out, 600)
    assert result["test_accuracy"] > 0.9


@pytest.mark.full
@pytest.mark.spark
def test_workers_in_spark_tasks_and_servers_beside_the_driver(
    asynchronous: Configure, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue("spark_local")
    out = tmp_path / "run"
    config = asynchronous(
        out=str(out), engine="spark", workers=2, servers=2, steps=300, evaluate_every=5.0,
        data="synthetic:800x3x8x8", lr=0.005,
    )  # fmt: skip
    killer = Killer(workers_at=[100], servers_at=[])
    result = train(config, engine=engine, on_event=killer)
    assert killer.killed == {"rank": 1, "server": 0}
    assert result["worker_losses"] == 1
    check_survived(result, out, 300)


@pytest.mark.full
def test_a_server_that_hangs_is_killed_and_comes_back(
    asynchronous: Configure, local_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "HANG_S", 3.0)
    config = asynchronous(
        out=str(tmp_path / "run"), engine="local", workers=2, servers=2, steps=200,
        evaluate_every=4.0, data="synthetic:800x3x8x8", lr=0.005,
    )  # fmt: skip
    killer = Killer(workers_at=[], servers_at=[80], number=signal.SIGSTOP)
    result = train(config, engine=local_engine, on_event=killer)
    assert [loss["server"] for loss in result["server_losses"]] == [0]
    assert result["worker_losses"] == 0
    check_survived(result, tmp_path / "run", 200)


@pytest.mark.full
def test_workers_that_all_hang_are_killed_and_replaced(
    asynchronous: Configure, local_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "STALL_S", 8.0)
    config = asynchronous(
        out=str(tmp_path / "run"), engine="local", workers=2, servers=2, steps=200,
        evaluate_every=4.0, data="synthetic:800x3x8x8", lr=0.005,
    )  # fmt: skip
    pids: dict[int, int] = {}
    stopped: list[int] = []

    def stop_all_once(event: Mapping[str, Any]) -> None:
        if event["kind"] == "rank":
            pids[event["rank"]] = event["pid"]
        if event["kind"] == "evaluation" and not stopped:
            stopped.extend(pids.values())
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    result = train(config, engine=local_engine, on_event=stop_all_once)
    assert len(stopped) == 2
    assert result["worker_losses"] >= 2
    check_survived(result, tmp_path / "run", 200)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_processes_survive_many_deaths_at_random_times(
    asynchronous: Configure, local_engine: Engine, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    config = asynchronous(
        out=str(tmp_path / "run"), engine="local", workers=3, servers=2, steps=1500,
        evaluate_every=2.0, data="synthetic:800x3x8x8", lr=0.002,
    )  # fmt: skip
    killer = Killer(
        workers_at=sorted(chance.randrange(40, 1300) for _ in range(6)),
        servers_at=sorted(chance.randrange(40, 1300) for _ in range(4)),
    )
    result = train(config, engine=local_engine, on_event=killer)
    assert killer.killed["rank"] >= 4
    assert killer.killed["server"] >= 3
    check_survived(result, tmp_path / "run", 1500)
    assert result["test_accuracy"] > 0.9


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize("master", ["spark_cluster", "spark_standalone"])
def test_every_kind_of_cluster(
    asynchronous: Configure, tmp_path: Path, master: str, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(master)
    for strategy, more in (("param_server", {"servers": 2}), ("hogwild", {"merge_every": 5})):
        out = tmp_path / strategy
        config = asynchronous(
            out=str(out), strategy=strategy, engine="spark", workers=2, steps=60, lr=0.005, **more
        )
        result = train(config, engine=engine)
        assert result["images"] == 60 * 40
        assert result["test_accuracy"] > 0.5
