"""The benchmark of training: who takes turns, what is refused, and one real tiny run."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.bench import BenchConfig, contenders, run, train
from benchmarks.bench.contenders import NotMeasuredError, Task, run_process
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig
from benchmarks.bench.peer_loop import own_range

from sixfold.core.errors import RunError, UserError

TINY = "synthetic:40x1x16x16"


def config(**changes: object) -> TrainBenchConfig:
    settings: dict[str, object] = {
        "data": TINY, "model": "lenet300", "batches": "10,4", "repeats": 2, "steps": 5,
    }  # fmt: skip
    return TrainBenchConfig(**settings | changes)  # type: ignore[arg-type]


def pretend(
    monkeypatch: pytest.MonkeyPatch, measures: dict[str, Callable[[Task], float]]
) -> list[str]:
    """Replace the contenders; returns the list into which their turns are written."""
    turns: list[str] = []

    def recorded(name: str, measure: Callable[[Task], float]) -> Callable[[Task], float]:
        def call(task: Task) -> float:
            turns.append(f"{name} {task.batch}")
            return measure(task)

        return call

    made = [
        train.Contender(name=name, what=name, measure=recorded(name, measure))
        for name, measure in measures.items()
    ]
    monkeypatch.setattr(train, "contenders", lambda workers, peers: made)
    monkeypatch.setattr(train, "limit_rate", lambda config, data: 1000.0)
    return turns


def absent(task: Task) -> float:
    raise NotMeasuredError("no Java here")


def test_contenders_take_turns_and_another_begins_each_repeat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns = pretend(monkeypatch, {name: lambda task: 100.0 for name in ("a", "b", "c")})
    train.run_train_bench(config(batches="10", out=str(tmp_path)), show=lambda line: None)
    assert turns == ["a 10", "b 10", "c 10", "b 10", "c 10", "a 10"]


def test_a_peer_that_cannot_run_is_shown_as_absent_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns = pretend(monkeypatch, {"sixfold": lambda task: 90.0 * task.batch, "ddp": absent})
    lines: list[str] = []
    train.run_train_bench(config(out=str(tmp_path)), show=lines.append)
    assert turns.count("ddp 10") == 1
    assert "ddp absent: no Java here" in lines
    (found,) = json.loads((tmp_path / "train.json").read_text())["tables"]
    assert found["failures"] == {"ddp": ["no Java here"]}
    assert found["rows"][0]["measured"]["sixfold"]["samples"] == [900.0, 900.0]
    assert found["rows"][0]["share_of_limit"] == 0.9
    page = (tmp_path / "train.html").read_text()
    assert "no Java here" in page
    assert "http" not in page.replace("http-equiv", "")


def test_without_sixfold_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, {"sixfold": absent, "eager": lambda task: 1.0})
    with pytest.raises(RunError, match="sixfold could not be measured: no Java here"):
        train.run_train_bench(config(out=str(tmp_path)), show=lambda line: None)


def test_steps_follow_from_a_short_run_of_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "pytorch_eager", lambda task: 50.0)
    data = train.resolve(config())
    task = train._task(config(steps=None, seconds=2.0), data, 10)
    assert (task.steps, task.seconds) == (13, 2.6)


def test_steps_chosen_on_a_busy_machine_are_chosen_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The first look says 10 images/s; measured are 1000, then 990.
    monkeypatch.setattr(train, "pytorch_eager", lambda task: 10.0)
    steps: list[int | None] = []

    def measured(task: Task) -> float:
        steps.append(task.steps)
        return 1000.0 if len(steps) == 1 else 990.0

    pretend(monkeypatch, {"sixfold": measured})
    lines: list[str] = []
    changed = config(batches="10", steps=None, seconds=1.0, repeats=2, out=str(tmp_path))
    (results,) = train.run_train_bench(changed, show=lines.append)
    assert steps == [8, 103, 103]
    assert "batch 10: that was too short; again, with 103 steps" in lines
    assert results.samples["sixfold", "B = 10"] == [990.0, 990.0]
    assert results.notes == ["steps of each measurement: 103 at B = 10"]


def test_each_network_has_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, {"sixfold": lambda task: 100.0})
    changed = config(model="lenet300, lenet5,lenet300", batches="10", out=str(tmp_path))
    found = train.run_train_bench(changed, show=lambda line: None)
    assert [one.title.split()[1] for one in found] == ["lenet300", "lenet5"]
    changed = config(model="lenet5@28:10,lenet300", batches="20", out=str(tmp_path))
    found = train.run_train_bench(changed, show=lambda line: None)
    assert [(one.title.split()[-1], one.rows) for one in found] == [
        ("synthetic:50x3x28x28", ["B = 10"]),
        (changed.data, ["B = 20"]),
    ]
    with pytest.raises(UserError) as caught:
        train.run_train_bench(config(model="lenet300,,x@0,x@9:"), show=lambda line: None)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("seconds", "rate", "batch", "steps"),
    [(1.0, 1000.0, 10, 103), (1.0, 10.0, 1000, 8), (0.001, 1.0, 1, 8)],
)
def test_steps_fill_the_time_but_never_fall_below_five(
    seconds: float, rate: float, batch: int, steps: int
) -> None:
    assert train.steps_for(seconds, rate, batch, 3) == steps


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    bad = config(batches="10,x", repeats=0, workers=0, seconds=-1.0, steps=3, out=str(tmp_path))
    with pytest.raises(UserError) as caught:
        run("train", BenchConfig(bench=bad), show=lambda line: None)
    assert len(caught.value.problems) == 5
    with pytest.raises(UserError, match="1 images cannot be divided among 2 processes"):
        run("train", BenchConfig(bench=config(batches="1")), show=lambda line: None)
    with pytest.raises(UserError, match="has only 40 images"):
        train.resolve(config(batches="41"))
    with pytest.raises(UserError, match="unknown benchmark 'trian': choose train"):
        run("trian", BenchConfig(), show=lambda line: None)


def test_without_pyspark_or_java_the_peer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(
        spec=TINY, data=train.resolve(config()), model="lenet300", workers=2, batch=10, steps=5,
        seconds=1.0, first_timed_step=3,
    )  # fmt: skip
    monkeypatch.setattr(contenders, "check_java", lambda environ: ["there is no Java"])
    with pytest.raises(NotMeasuredError, match=r"there is no Java|pyspark is not installed"):
        contenders.torch_distributor(task)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotMeasuredError, match="pyspark is not installed"):
        contenders.torch_distributor(task)


def test_a_process_that_fails_tells_its_last_words() -> None:
    with pytest.raises(NotMeasuredError, match=r"exit 3: a \| b"):
        run_process([sys.executable, "-c", "print('a\\nb'); raise SystemExit(3)"], 1.0)


def test_a_process_that_hangs_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(contenders, "STARTUP_S", 1.0)
    mark = "sixfold-bench-test-hang"
    program = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{mark}']); "
        "time.sleep(60)"
    )
    with pytest.raises(NotMeasuredError, match="not done after 1 s"):
        run_process([sys.executable, "-c", program], 0.0)

    def left() -> bool:
        return any(
            mark in (process.info["cmdline"] or []) and process.info["status"] != "zombie"
            for process in psutil.process_iter(["cmdline", "status"])
        )

    deadline = time.monotonic() + 10.0  # a killed process takes a moment to be gone
    while left():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ranks_divide_a_batch_without_rest() -> None:
    for batch in (7, 10, 1000):
        ranges = [own_range(batch, rank, 3) for rank in range(3)]
        assert ranges[0][0] == 0
        assert ranges[-1][1] == batch
        assert all(a[1] == b[0] for a, b in pairwise(ranges))


@pytest.mark.full
def test_a_real_run_at_tiny_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = [c for c in real if c.name != "ddp"]
    monkeypatch.setattr(train, "contenders", lambda workers, peers: kept)
    lines: list[str] = []
    tiny = config(batches="10", repeats=1, out=str(tmp_path))
    assert run("train", BenchConfig(bench=tiny), show=lines.append) == 0
    (found,) = json.loads((tmp_path / "train.json").read_text())["tables"]
    row = found["rows"][0]
    assert found["notes"] == ["steps of each measurement: 5 at B = 10"]
    assert row["measured"]["sixfold"]["median"] > 0
    for peer in ("eager", "channels-last", "torchrun", "bf16", "autocast"):
        assert row["ratios"][peer]["median"] > 0, peer
    assert row["fastest"]["sixfold"] in train.FLOAT32


real = train.contenders(2)


@pytest.mark.full
@pytest.mark.spark
def test_a_real_run_with_torch_distributor(tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    tiny = config(batches="10", repeats=1, out=str(tmp_path))
    asked = BenchConfig(bench=tiny, parts=PartsBenchConfig(peers="eager,ddp"))
    assert run("train", asked, show=lambda line: None) == 0
    (found,) = json.loads((tmp_path / "train.json").read_text())["tables"]
    assert not found["failures"]
    assert found["rows"][0]["measured"]["ddp"]["median"] > 0
