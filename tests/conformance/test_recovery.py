"""Ranks are killed in the middle of a training: nothing is lost, not a bit."""

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.marks import quick
from tests.spark_masters import EngineProcess, standalone_cluster
from torch import nn

from sixfold.core.errors import RankLostError
from sixfold.distributed.engines import Engine
from sixfold.distributed.engines.inline import InlineEngine
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


class Normed(nn.Sequential):
    """A small network with buffers."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Flatten(), nn.Linear(216, 10)),
        )


EVERYTHING: dict[str, Any] = {
    "model": "tests.conformance.test_recovery:Normed",
    "data": "synthetic:96x3x8x8",
    "validation": 0.25,
    "batch_size": 24,
    "steps": 14,
    "evaluate_every": 1.0,
    "checkpoint_every": 5,
    "lr": 0.02,
    "optimizer": "adamw",
    "clip_norm": 1.0,
    "ema": 0.95,
    "best": "loss",
    "schedule": "plateau:1:0.5",
}
"""Buffers, state of the update rule, decisions of rank 0: all that has to be handed on."""


def steps_of(run: Path) -> list[int]:
    """The steps that the metrics of a run tell of."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line["step"] for line in map(json.loads, lines) if "loss" in line]


def evaluations_of(run: Path) -> list[tuple[int, str, float]]:
    """The evaluations that they tell of."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["part"], line["eval_loss"]) for line in lines if "part" in line]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A training that nothing happens to."""
    from tests.conftest import small_config

    run = tmp_path_factory.mktemp("calm") / "run"
    return train(small_config(**EVERYTHING, out=str(run))), run


SELECTED = ("weights_sha256", "raw_weights_sha256", "steps", "best_step", "test_loss")


@pytest.mark.parametrize("seed", quick(range(6), 1))
def test_ranks_die_at_any_exchange_and_the_bits_are_those_of_a_calm_run(
    configure: Configure, calm: tuple[dict[str, Any], Path], tmp_path: Path, seed: int
) -> None:
    expected, calm_run = calm
    random = np.random.default_rng(seed)
    engine = InlineEngine(strike=lambda *_: bool(random.random() < 0.02))
    settings = EVERYTHING | {"engine": "inline", "workers": 4, "max_restarts": 100}
    found = train(configure(**settings, out=str(tmp_path / "run")), engine=engine)
    assert {name: found[name] for name in SELECTED} == {name: expected[name] for name in SELECTED}
    assert steps_of(tmp_path / "run") == list(range(1, 15))
    assert evaluations_of(tmp_path / "run") == evaluations_of(calm_run)
    assert found["restarts"] >= 1
    firsts = [view["first_step"] for view in found["views"]]
    assert firsts == sorted(firsts) or found["lost_steps"] > len(firsts)


@pytest.mark.parametrize("exchange", quick(range(6, 11), 9))
@pytest.mark.parametrize("norm", quick(["shard", "sync"], "sync"))
def test_a_step_that_was_interrupted_leaves_no_trace(
    configure: Configure, tmp_path: Path, norm: str, exchange: int
) -> None:
    settings = EVERYTHING | {"engine": "inline", "batch_norm": norm, "steps": 4}
    expected = train(configure(**settings, workers=1, out=str(tmp_path / "calm")))
    engine = InlineEngine(strike=lambda slot, _, number: slot == 0 and number == exchange)
    found = train(configure(**settings, workers=3, out=str(tmp_path / "run")), engine=engine)
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert [view["ranks"] for view in found["views"]][-1] == 2


WAITING: dict[str, dict[str, Any]] = {
    "mirror": {"strategy": "model_parallel", "grid": "rows=2", "workers": 2},
    "ring": {"strategy": "model_parallel", "grid": "cout=3", "workers": 3},
    "tiles": {"strategy": "model_parallel", "grid": "batch=2,rows=2", "workers": 4},
    "merge": {"strategy": "local_sgd", "local_steps": 3, "workers": 3},
    "post": {"strategy": "local_sgd", "local_steps": 3, "workers": 2, "post_local": 1.0},
    "groups": {
        **{"strategy": "local_sgd", "local_steps": 2, "workers": 4, "groups": 2},
        **{"swap_every": 1, "aggregation": "nesterov"},
    },
}
"""Strategies whose ranks wait for a replacement, in the ways in which that gets its state."""
MOST_LOST = {"model_parallel": 1, "local_sgd": 3}


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("mirror", [1]),
        pytest.param("merge", [1], marks=pytest.mark.full),
        *(pytest.param(name, [*range(2, 6)], marks=pytest.mark.full) for name in WAITING),
    ],
)
def test_a_replacement_gets_its_part_from_a_rank_and_the_bits_are_those_of_a_calm_run(
    configure: Configure, tmp_path: Path, name: str, seeds: list[int]
) -> None:
    settings = EVERYTHING | WAITING[name] | {"engine": "inline", "max_restarts": 100}
    if name == "ring":
        settings |= {"batch_norm": "sync", "optimizer": "sgd"}
    if name == "groups":
        del settings["ema"]
    first, last = (4, 18) if settings["strategy"] == "local_sgd" else (20, 90)  # exchanges
    if len(seeds) == 1:
        settings |= {"steps": 5, "checkpoint_every": 100}
    run = tmp_path / "calm"
    calm = train(configure(**settings, out=str(run)), engine=InlineEngine())
    for seed in seeds:
        random = np.random.default_rng(seed)
        strikes = {
            (slot, int(random.integers(first, last))) for slot in range(1, settings["workers"])
        }
        engine = InlineEngine(
            strike=lambda slot, life, count, at=strikes: life == 0 and (slot, count) in at  # type: ignore[misc]
        )
        other = tmp_path / f"run-{seed}"
        found = train(configure(**settings, out=str(other)), engine=engine)
        assert [found.get(name) for name in SELECTED] == [calm.get(name) for name in SELECTED]
        assert steps_of(other) == list(range(1, settings["steps"] + 1))
        assert evaluations_of(other) == evaluations_of(run)
        assert found["restarts"] >= 1
        most = MOST_LOST[settings["strategy"]]
        assert all(view["lost_steps"] <= most for view in found["views"])
        assert {view["ranks"] for view in found["views"]} == {settings["workers"]}


@pytest.mark.full
@pytest.mark.parametrize("checkpoint_every", quick([2, 100], 2))
def test_a_part_that_is_lost_with_its_mirror_comes_from_a_checkpoint_or_the_beginning(
    configure: Configure, tmp_path: Path, checkpoint_every: int
) -> None:
    settings = EVERYTHING | WAITING["ring"] | {"engine": "inline", "max_restarts": 2, "steps": 6}
    settings |= {"checkpoint_every": checkpoint_every, "best": "", "schedule": "constant"}
    settings["validation"] = 0.0  # by which checkpoints would be kept too
    calm = train(configure(**settings | {"max_restarts": 0}, out=str(tmp_path / "calm")))
    dead = set[int]()

    def strike(slot: int, life: int, count: int) -> bool:
        hit = life == 0 and ((slot == 1 and count == 75) or (slot == 2 and 1 in dead))
        dead.update({slot} if hit else ())
        return hit

    notes = list[str]()
    found = train(
        configure(**settings, out=str(tmp_path / "run")),
        engine=InlineEngine(strike=strike),
        on_event=lambda event: notes.append(event.get("text", "")),
    )
    assert found["weights_sha256"] == calm["weights_sha256"]
    assert dead == {1, 2}
    assert any("all go on from the last checkpoint" in note for note in notes)
    last = found["views"][-1]
    assert last["first_step"] in ((3, 5) if checkpoint_every == 2 else (1,))
    assert last["lost_steps"] >= 1
    assert steps_of(tmp_path / "run") == list(range(1, 7))


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 3, "steps": 300},
        pytest.param(
            {"strategy": "model_parallel", "grid": "rows=2", "steps": 1500}, marks=pytest.mark.full
        ),
        pytest.param(
            {"strategy": "local_sgd", "local_steps": 7, "steps": 3000}, marks=pytest.mark.full
        ),
    ],
    ids=["sync", "model_parallel", "local_sgd"],
)
def test_a_killed_rank_is_replaced(
    configure: Configure,
    engine_named: Callable[[str], Engine],
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    settings = SETTINGS | {"engine": "local", "max_restarts": 1} | changes
    calm = train(configure(out=str(tmp_path / "calm"), **settings), engine=engine_named("local"))
    run = tmp_path / "run"
    found = train(
        configure(out=str(run), **settings), engine=engine_named("local"), on_event=Killer(1)
    )
    assert found["weights_sha256"] == calm["weights_sha256"]
    assert steps_of(run) == list(range(1, settings["steps"] + 1))
    ranks = [view["ranks"] for view in found["views"]]
    if "strategy" in changes:
        assert ranks == [2, 2]
    else:
        assert ranks[0] == 3
        assert ranks[-1] in (2, 3)  # the replacement may come when all is over
    assert found["lost_steps"] <= changes.get("local_steps", 1)
    assert found["restarts"] == 1


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
    assert found["lost_steps"] <= 1
    assert steps_of(tmp_path / "run") == list(range(1, SETTINGS["steps"] + 1))


class Decommissioner:
    """Sends away the host of a rank in the middle, and ends its executor later, as clouds do."""

    def __init__(self) -> None:
        self.executor, self.worker = psutil.Process(), psutil.Process()
        self.left = ["kill", "decommission"]

    def __call__(self, event: Any) -> None:
        if event["kind"] == "rank" and event["rank"] == 1 and len(self.left) == 2:
            _, self.executor, self.worker, *_ = psutil.Process(event["pid"]).parents()
        elif event["kind"] == "progress" and event["step"] > 60 and len(self.left) == 2:
            self.left.pop()
            self.worker.send_signal(signal.SIGPWR)
        elif event["kind"] == "progress" and event["step"] > 600 and self.left:
            self.left.pop()
            self.executor.kill()


class Copies:
    """Counts executors that run a task, which are more than ranks where a task has a copy."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, event: Any) -> None:
        if event["kind"] == "rank":
            self.cluster = psutil.Process(event["pid"]).parents()[3]
        elif event["kind"] == "progress":
            tree = self.cluster.children(recursive=True)
            pythons = {one.pid: one for one in tree if "pyspark.daemon" in _command(one)}
            daemons = {one.ppid() for one in pythons.values()} & pythons.keys()  # with a worker
            self.most = max(self.most, len(daemons))


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_speculative_copies_and_decommissioned_hosts_cost_no_bit(
    configure: Configure, tmp_path: Path
) -> None:
    settings = SETTINGS | {"steps": 2000, "checkpoint_every": 100_000}
    calm = train(configure(out=str(tmp_path / "calm"), **settings))
    settings |= {"engine": "spark"}
    conf = ["spark.decommission.enabled=true", "spark.executor.memory=512m"]
    conf += ["spark.speculation=true", "spark.speculation.task.duration.threshold=1s"]
    copies, decommissioner = Copies(), Decommissioner()
    listeners: tuple[Callable[[Any], None], ...] = (copies, decommissioner)
    with (
        standalone_cluster(tmp_path, 3, "-Dspark.decommission.enabled=true") as url,
        contextlib.closing(EngineProcess(url, tmp_path, *conf)) as engine,
    ):
        for number, listener in enumerate(listeners):
            config = configure(out=str(tmp_path / f"run{number}"), **settings)
            found = train(config, engine=engine, on_event=listener)
            assert found["weights_sha256"] == calm["weights_sha256"]
            assert found["lost_steps"] == found["restarts"] == number
    assert copies.most > settings["workers"]
    assert not decommissioner.left


@pytest.mark.full
@pytest.mark.spark
def test_more_deaths_than_restarts_end_the_run_with_the_facts(
    configure: Configure, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue("spark_local")
    settings = {**SETTINGS, "steps": 100_000, "engine": "spark", "max_restarts": 1}
    settings["min_workers"] = 2  # the other would go on alone
    config = configure(out=str(tmp_path / "run"), **settings)
    with pytest.raises(RankLostError, match="died"):
        train(config, engine=engine, on_event=Killer(2))
    assert list((tmp_path / "run" / "checkpoints").iterdir())
