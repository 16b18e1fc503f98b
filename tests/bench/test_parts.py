"""The smaller benchmarks: real tiny runs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.bench import NAMES, BenchConfig, kernels, run, startup
from benchmarks.bench import input as input_bench
from benchmarks.bench.kernels import CASES, limit_s
from benchmarks.bench.options import TAKES, PartsBenchConfig, TrainBenchConfig

from sixfold import data
from sixfold.core.errors import UserError
from sixfold.data.config import DataConfig
from sixfold.perf.profile.limits import CopyRate, Machine, ProductRate

TINY = "synthetic:40x1x16x16"


def tables(folder: Path, name: str) -> list[Any]:
    found: list[Any] = json.loads((folder / f"{name}.json").read_text())["tables"]
    assert (folder / f"{name}.html").exists()
    return found


def settings(folder: Path, **changes: Any) -> TrainBenchConfig:
    values: dict[str, Any] = {
        "data": TINY, "model": "lenet300", "batches": "10", "repeats": 1, "out": str(folder),
    }  # fmt: skip
    return TrainBenchConfig(**values | changes)


def machine() -> Machine:
    return Machine(
        processor="", cores=2, memory_bytes=0, caches=(), torch="", measured_at=0.0,
        products=(ProductRate(precision="float32", one_core_flops=1e11, all_cores_flops=2e11),),
        copies=(CopyRate(array_bytes=1 << 20, one_core_bytes=1e10, all_cores_bytes=2e10),),
    )  # fmt: skip


def test_every_benchmark_says_what_it_takes() -> None:
    assert set(TAKES) == set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_wrong_settings_are_refused_before_anything_runs(name: str, tmp_path: Path) -> None:
    config = BenchConfig(bench=TrainBenchConfig(repeats=0, out=str(tmp_path / "out")))
    with pytest.raises(UserError, match="--repeats 0"):
        run(name, config, show=print)
    assert not (tmp_path / "out").exists()


def test_limits_are_arithmetic_or_bytes() -> None:
    conv, pool = CASES[0], CASES[1]
    # 3 passes of 2 x 25 x 32 x 32 x 32 x 75 operations at 1e11 a second.
    assert limit_s(conv, 25, machine()) == pytest.approx(3 * 2 * 25 * 32768 * 75 / 1e11)
    # Input three times and output twice, 4 bytes each.
    assert limit_s(pool, 25, machine()) == pytest.approx(4 * 25 * (3 * 32768 + 2 * 8192) / 1e10)


def test_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "measure_machine", lambda precisions: machine())
    monkeypatch.setattr(kernels, "CASES", CASES[:5])
    monkeypatch.setattr(kernels, "SAMPLE_S", 0.001)
    config = BenchConfig(
        bench=TrainBenchConfig(repeats=2, out=str(tmp_path)), parts=PartsBenchConfig(images=2)
    )
    run("kernels", config, show=print)
    (table,) = tables(tmp_path, "kernels")
    assert [row["case"] for row in table["rows"]] == [case.name for case in CASES[:5]]
    assert all(row["share_of_limit"] > 0 for row in table["rows"])
    assert all(len(row["measured"]["pytorch"]["samples"]) == 2 for row in table["rows"])


def test_loading_alone_and_by_torchs_loader() -> None:
    opened = data.open_data(data.resolve(DataConfig(data=TINY)))
    assert input_bench.loading_rate(opened, "flip", 10, 0.05) > 0
    assert input_bench.dataloader_rate(opened, "flip", 10, 0.05) > 0


@pytest.mark.full
def test_input_of_a_real_training(tmp_path: Path) -> None:
    config = BenchConfig(
        bench=settings(tmp_path, seconds=0.05, steps=8, workers=1),
        parts=PartsBenchConfig(augment="flip"),
    )
    run("input", config, show=print)
    rates, idle = tables(tmp_path, "input")
    assert rates["rows"][0]["measured"]["training"]["median"] > 0
    assert 0 <= idle["rows"][0]["measured"]["sixfold"]["median"] <= 100


@pytest.mark.full
def test_scaling(tmp_path: Path) -> None:
    run("scaling", BenchConfig(bench=settings(tmp_path, steps=8)), show=print)
    rates, memory = tables(tmp_path, "scaling")
    assert set(rates["rows"][0]["ratios"]) == {"one", "copies"}
    assert memory["rows"][0]["measured"]["eager"]["median"] > 50


@pytest.mark.full
def test_startup(tmp_path: Path) -> None:
    run("startup", BenchConfig(bench=settings(tmp_path)), show=print)
    (table,) = tables(tmp_path, "startup")
    assert [len(row["measured"]["sixfold"]["samples"]) for row in table["rows"]] == [1, 1]


@pytest.mark.full
def test_several_networks_and_peers(tmp_path: Path) -> None:
    config = BenchConfig(
        bench=settings(tmp_path, model="lenet300,slide", steps=5),
        parts=PartsBenchConfig(peers="eager"),
    )
    run("train", config, show=print)
    both = tables(tmp_path, "train")
    assert [table["title"].split()[1] for table in both] == ["lenet300", "slide"]
    assert (tmp_path / "train.html").exists()


def test_unknown_peers_are_refused(tmp_path: Path) -> None:
    config = BenchConfig(bench=settings(tmp_path), parts=PartsBenchConfig(peers="eager,horovod"))
    with pytest.raises(UserError, match="unknown peer 'horovod'"):
        run("train", config, show=print)


def test_help_is_timed_by_the_clock() -> None:
    assert 0 < startup._help_s(["true"]) < 5
