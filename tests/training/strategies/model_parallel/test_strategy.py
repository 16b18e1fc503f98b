"""Model parallel as a user meets it: wrong grids, resumption in another grid, traffic, files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.marks import quick

from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.strategies.model_parallel.strategy import division_problems, grid_of
from sixfold.training.strategies.registry import build_strategy

Configure = Callable[..., TrainConfig]
DIVIDED = {"strategy": "model_parallel", "precision": "float64"}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"grid": "rows=2,cols=2", "workers": 3}, "1 x 2 x 2 x 1 x 1 = 4 ranks, but there are 3"),
        ({"grid": "rows=0", "workers": 1}, "'rows=0' is not AXIS=SIZE"),
        ({"grid": "rows=2", "workers": 2, "strategy": "sync"}, "only for --strategy model_par"),
        ({"grid": "rows=2", "workers": 2, "model": "grouped:network"}, "'1' \\(GroupNorm\\)"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    configure: Configure,
    tmp_path: Path,
    settings: dict[str, Any],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "grouped.py").write_text(
        "from torch import nn\n"
        "def network(shape, classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(),\n"
        "        nn.Linear(144, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=text):
        train(configure(out=str(tmp_path / "run"), **DIVIDED | settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch_norm", quick(["shard", "sync"], "sync"))
def test_norms_without_running_statistics_are_evaluated_as_in_serial_training(
    configure: Configure, tmp_path: Path, batch_norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"untracked_{batch_norm}.py").write_text(
        "from torch import nn\n"
        "def network(shape, classes):\n"
        "    norm = nn.BatchNorm2d(4, track_running_stats=False)\n"
        "    layers = nn.Conv2d(3, 4, 3), norm, nn.Flatten(), nn.Linear(144, classes)\n"
        "    return nn.Sequential(*layers)\n"
    )
    monkeypatch.chdir(tmp_path)
    model = f"untracked_{batch_norm}:network"
    settings: dict[str, Any] = {"model": model, "batch_norm": batch_norm, "steps": 2}
    serial = train(configure(out=str(tmp_path / "serial"), precision="float64", **settings))
    grid = {"grid": "batch=2,rows=2,cout=2", "workers": 8}
    divided = train(configure(out=str(tmp_path / "divided"), **DIVIDED, **grid, **settings))
    assert divided["test_loss"] == pytest.approx(serial["test_loss"], abs=1e-10)


def test_without_a_grid_all_ranks_divide_rows(configure: Configure) -> None:
    assert str(grid_of(configure(**DIVIDED), 3)) == "rows=3"


def test_more_ranks_than_rows_is_no_problem(configure: Configure) -> None:
    config = configure(grid="rows=40", **DIVIDED)
    assert division_problems(config, 40, shape=(3, 8, 8), classes=10) == []


@pytest.mark.full
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_goes_on_in_another_grid(
    configure: Configure, tmp_path: Path, optimizer: str
) -> None:
    settings: dict[str, Any] = {
        **DIVIDED,
        "model": "resnet20",
        "model_args": "depth=8",
        "batch_size": 40,
        "optimizer": optimizer,
        "lr": 0.001,
        "checkpoint_every": 1,
    }
    whole = train(configure(out=str(tmp_path / "whole"), steps=6, **settings))
    out = tmp_path / "run"

    class StopError(Exception):
        pass

    def stop(event: Any) -> None:
        if event["kind"] == "progress" and event["step"] >= 3:
            raise StopError

    config = configure(out=str(out), steps=6, grid="cout=2,cin=2", workers=4, **settings)
    with pytest.raises(BaseException, match="StopError"):
        train(config, on_event=stop)
    assert list((out / "checkpoints").iterdir())
    found = train(
        configure(out=str(out), steps=6, grid="rows=2", workers=2, resume=True, **settings)
    )
    assert found["steps"] == 6
    expected, weights = (
        load_file(path / "model.safetensors") for path in (tmp_path / "whole", out)
    )
    for name, value in weights.items():
        assert float((value - expected[name]).abs().max()) < 1e-10, name
    assert found["test_accuracy"] == whole["test_accuracy"]


def test_the_best_checkpoint_is_kept_and_evaluation_is_the_whole_networks(
    configure: Configure, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "data": "synthetic:120x3x8x8",
        "validation": 0.2,
        "evaluate_every": 0.5,
        "precision": "float64",
        "steps": 9,
        "batch_size": 20,
    }
    expected = train(configure(out=str(tmp_path / "serial"), **settings))
    found = train(
        configure(
            out=str(tmp_path / "run"),
            strategy="model_parallel",
            grid="batch=2,rows=2",
            workers=4,
            **settings,
        )
    )
    for name in ("best_step", "best_validation_accuracy", "validation_accuracy", "worst"):
        if name == "worst":
            assert [w["index"] for w in found[name]] == [w["index"] for w in expected[name]]
        else:
            assert found[name] == expected[name]
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert f"step-{found['best_step']:09d}.safetensors" in names
    assert len(names) <= 3


def test_the_published_file_is_that_of_any_run(configure: Configure, tmp_path: Path) -> None:
    from sixfold.training.model_card import load_network

    train(configure(out=str(tmp_path), grid="cout=2", workers=2, **DIVIDED))
    network, card = load_network(tmp_path / "model.safetensors")
    assert network(torch.zeros(1, *card.shape, dtype=torch.float64)).shape == (1, 10)


SLIDE_BYTES: dict[str, Callable[[int], int]] = {
    "batch=2": lambda _: (
        2 * (84_362 + 6 + 5) * 4 // 2
    ),  # padding between parameters; loss, counts, wish
    "rows=2": lambda b: 40 * b + (32 * 3 * 5 * 5 + 32) * 4,
    "cout=2": lambda b: 40 * b,
    "cin=2": lambda b: 40 * b + 2 * (16 * 32 * 32) * 4 * b,
}
"""What a rank sends in a step of b images: logits; gradient of the convolution; partial sums."""


@pytest.mark.parametrize("batch_size", [10, 100, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.parametrize("grid", SLIDE_BYTES)
def test_traffic_of_the_slide_network_is_what_the_page_says(
    configure: Configure, grid: str, batch_size: int
) -> None:
    config = configure(
        data=f"synthetic:{batch_size}x3x32x32",
        batch_size=batch_size,
        grid=grid,
        workers=2,
        strategy="model_parallel",
    )

    def count(comm: Communicator) -> int:
        data = datasets.open_data(datasets.resolve(config.data))
        strategy = build_strategy(comm, config, data)
        before = comm.traffic.bytes_sent
        strategy.train_step(0, strategy.shards(0), 0.01)
        return comm.traffic.bytes_sent - before

    with InlineEngine() as engine:
        assert engine.run_ranks(count, 2).results == [SLIDE_BYTES[grid](batch_size)] * 2


@pytest.mark.full
@pytest.mark.parametrize("grid", ["rows=7", pytest.param("cout=2,cin=2", marks=pytest.mark.full)])
def test_bfloat16_is_near_to_serial_training_with_it_and_the_same_every_time(
    configure: Configure, tmp_path: Path, grid: str
) -> None:
    """Maps of six rows leave a rank without any."""
    settings: dict[str, Any] = {
        "model": "resnet20",
        "model_args": "depth=8",
        "data": "synthetic:16x3x6x6",
        "batch_size": 4,
        "steps": 2,
        "precision": "bf16",
    }
    serial = train(configure(out=str(tmp_path / "serial"), **settings))
    divided = {**settings, "strategy": "model_parallel", "grid": grid}
    workers = {"rows=7": 7}.get(grid, 4)
    found, again = (
        train(configure(out=str(tmp_path / name), workers=workers, **divided))
        for name in ("one", "two")
    )
    assert found["weights_sha256"] == again["weights_sha256"]
    assert found["test_loss"] == pytest.approx(serial["test_loss"], rel=0.05)
    weights = load_file(tmp_path / "one" / "model.safetensors")
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float32}
