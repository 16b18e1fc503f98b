"""`--strategy auto` and `--grid auto`, with a calibration made up so that the choice is known."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import sixfold
from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.distributed.engines import open_engine
from sixfold.perf.plan.calibrate import fitting_meshes
from sixfold.perf.plan.calibration import Calibration, Machine, Network, Point, network_key, save
from sixfold.perf.plan.candidates import cases
from sixfold.training.losses.registry import with_target

SETTINGS: dict[str, Any] = {
    "data": "synthetic:64x1x8x8",
    "model": "lenet300",
    "batch_size": 16,
    "steps": 12,
    "workers": 2,
    "engine": "inline",
    "evaluate_every": 0.0,
}


@pytest.fixture
def machine(tmp_path: Path) -> Any:
    """Writes a calibration in which exchanges take so long, and halves of layers so."""

    def make(
        *,
        exchange_s: float,
        mesh_s: float = 1.0,
        step_factor: float = 1.0,
        available_bytes: int = 10**12,
        **more: Any,
    ) -> str:
        config = sixfold.configure(**(SETTINGS | more))
        data = datasets.resolve(with_target(config.data, config.loss))
        config = dataclasses.replace(config, data=data)
        opened = datasets.open_data(config.data)
        fitting = fitting_meshes(config, opened, 2)
        wanted = [
            case
            for level in (1, 2)
            for case in cases(config, 2, fitting, batch_norm=False, concurrency=level)
        ]
        points = [
            Point(
                mesh=case.mesh,
                merge=case.merge,
                samples=case.samples,
                shards=case.shards,
                concurrency=case.concurrency,
                step_s=(mesh_s if case.mesh else 1.0) * 1e-3 * case.shards * step_factor,
                behind_s=0.0,
                clock_s=1e-3,
                data_s=0.0,
                update_s=0.0,
                peak_bytes=10**6,
                payload_bytes=1000,
                exchanges=(((100,), (100,)),) if case.mesh else (),
            )
            for case in wanted
        ]
        rows = [[64.0, exchange_s, exchange_s], [1e6, exchange_s, exchange_s]]
        made = Calibration(
            machine=Machine(
                name="made up",
                engine="inline",
                slots=2,
                ranks=2,
                available_bytes=available_bytes,
                base_bytes=10**6,
                adding_bytes_per_s=1e12,
                startup_s=0.0,
                links={"local": {"1": rows}},
                crowded={"local": {"1": rows}},
            ),
            networks={
                network_key(config): Network(
                    payload_bytes=1000, parameter_bytes=1000, slots=1, points=tuple(points)
                )
            },
        )
        save(made, tmp_path / "machine.json")
        return str(tmp_path / "machine.json")

    return make


def settings(tmp_path: Path, machine: str, **more: Any) -> sixfold.TrainConfig:
    chosen = {**SETTINGS, "strategy": "auto", "machine": machine, "out": str(tmp_path / "run")}
    return sixfold.configure(**(chosen | more))


@pytest.mark.full
def test_slow_links_leave_one_worker(tmp_path: Path, machine: Any) -> None:
    result = sixfold.train(settings(tmp_path, machine(exchange_s=1.0)))
    chosen = result["plan"]["chosen"]
    assert (chosen["strategy"], chosen["workers"], result["workers"]) == ("sync", 1, 1)
    assert chosen["result"] == "bit for bit"
    assert result["plan"]["actual_step_s"] > 0
    error = chosen["batch_s"] / result["plan"]["actual_step_s"] - 1
    assert result["plan"]["error"] == pytest.approx(error, abs=1e-6)
    kept = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert kept["chosen"]["workers"] == 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["strategy"]["strategy"] == "auto"


def test_quick_links_take_all_and_the_bits_are_serial(tmp_path: Path, machine: Any) -> None:
    result = sixfold.train(settings(tmp_path, machine(exchange_s=1e-7)))
    assert result["workers"] == 2
    serial = sixfold.train(
        sixfold.configure(**(SETTINGS | {"workers": 1, "out": str(tmp_path / "serial")}))
    )
    assert result["weights_sha256"] == serial["weights_sha256"]


@pytest.mark.full
def test_rounding_must_be_allowed(tmp_path: Path, machine: Any) -> None:
    path = machine(exchange_s=1e-7, mesh_s=0.01)
    exact = sixfold.train(settings(tmp_path, path))
    assert exact["strategy"] == "sync"
    loose = sixfold.train(
        settings(tmp_path, path, deterministic=False, out=str(tmp_path / "loose"))
    )
    assert loose["strategy"] == "model_parallel"
    assert loose["plan"]["chosen"]["result"] == "up to rounding"
    grid = sixfold.train(
        settings(tmp_path, path, strategy="model_parallel", grid="auto", out=str(tmp_path / "grid"))
    )
    assert grid["grid"] == grid["plan"]["chosen"]["grid"] != "batch=2"


def test_each_layer_gets_its_way_and_the_run_keeps_it(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "narrowing.py").write_text(
        "from torch import nn\n"
        "def network(shape, classes):\n"
        "    large = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)\n"
        "    small = nn.Conv2d(8, 128, 3, padding=1), nn.Conv2d(128, 128, 3)\n"
        "    layers = *large, nn.MaxPool2d(8), *small, nn.Flatten(), nn.Linear(512, classes)\n"
        "    return nn.Sequential(*layers)\n"
    )
    monkeypatch.chdir(tmp_path)
    shared: dict[str, Any] = {
        "model": "narrowing:network",
        "data": "synthetic:12x1x32x32",
        "batch_size": 2,
        "steps": 2,
        "strategy": "model_parallel",
    }
    path = machine(exchange_s=1e-7, mesh_s=0.01, **shared)
    found = sixfold.train(settings(tmp_path, path, grid="auto", **shared))
    assert ";" in found["grid"]
    assert found["grid"] == found["plan"]["chosen"]["grid"]
    kept = str(tmp_path / "run" / "division.json")
    again = sixfold.configure(**(SETTINGS | shared), grid=kept, out=str(tmp_path / "again"))
    assert sixfold.train(again)["weights_sha256"] == found["weights_sha256"]


def test_a_resumed_run_keeps_its_choice(tmp_path: Path, machine: Any) -> None:
    first = settings(tmp_path, machine(exchange_s=1.0))
    sixfold.train(first)
    (tmp_path / "run" / "result.json").unlink()
    machine(exchange_s=1e-7)  # the machine is another one now
    run = dataclasses.replace(first.run, resume=True)
    assert sixfold.train(dataclasses.replace(first, run=run))["workers"] == 1


def test_what_fits_nowhere_is_refused(tmp_path: Path, machine: Any) -> None:
    with pytest.raises(UserError, match="fits into memory"):
        sixfold.train(settings(tmp_path, machine(exchange_s=1e-7, available_bytes=1000)))
    assert not (tmp_path / "run").exists()


def test_the_file_is_for_choosing_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only for --strategy auto"):
        sixfold.train(settings(tmp_path, "machine.json", strategy="sync"))


@pytest.mark.full
def test_a_missing_file_is_measured_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    with contextlib.closing(open_engine("inline")) as engine:
        result = sixfold.train(settings(tmp_path, str(path)), engine=engine)
    assert path.is_file()
    assert result["plan"]["chosen"]["batch_s"] > 0


def test_a_plan_that_steps_belie_is_looked_at_again_and_the_bits_stay(
    tmp_path: Path, machine: Any
) -> None:
    """Steps take longer than the made-up calibration says: one core is all there seems to be."""
    more = {"steps": 200}
    path = machine(exchange_s=1e-9, step_factor=1e-3, **more)
    notes: list[str] = []
    found = sixfold.train(
        **(SETTINGS | more),
        strategy="auto",
        replan=True,
        machine=path,
        out=str(tmp_path / "run"),
        on_event=lambda event: notes.append(event["text"]) if event["kind"] == "note" else None,
    )
    looks = found["plan"]["looks"]
    assert (looks[0]["workers"], looks[0]["then"], looks[0]["step"]) == (2, 1, 60)
    assert looks[0]["text"] in notes
    assert found["steps"] == 200
    starts = 1 + len(looks)
    assert [view["ranks"] for view in found["views"]][:2] == [2, 1]
    assert len(found["views"]) == starts  # what each of them took adds up
    assert found["startup_s"] < found["wall_s"] - found["training_s"]
    serial = sixfold.train(**(SETTINGS | more | {"workers": 1}), out=str(tmp_path / "serial"))
    assert found["weights_sha256"] == serial["weights_sha256"]
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in metrics.splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 201))
