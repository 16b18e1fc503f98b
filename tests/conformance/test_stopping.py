"""Stopping and selecting: the same step and the same bits for any number of workers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sixfold.core.errors import UserError
from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

EVERYTHING: dict[str, Any] = {
    "data": "synthetic:120x3x8x8",
    "validation": 0.25,
    "batch_size": 30,
    "steps": 40,
    "evaluate_every": 1.0,
    "lr": 0.02,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "no_decay": "norms,biases",
    "clip_norm": 1.0,
    "ema": 0.95,
    "label_smoothing": 0.1,
    "augment": "flip,mixup:0.4",
    "early_stopping": "accuracy:2",
    "best": "loss",
    "schedule": "plateau:1:0.5",
}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from tests.conftest import small_config

    return train(small_config(**EVERYTHING, out=str(tmp_path_factory.mktemp("serial") / "run")))


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("weights_sha256", "raw_weights_sha256", "steps", "stopped_by", "best_step"):
        assert found[name] == expected[name], name


def test_a_training_stops_early_and_says_why(serial: dict[str, Any]) -> None:
    assert serial["steps"] < 40
    assert serial["stopped_by"] == "early stopping: accuracy has not improved in 2 evaluations"
    assert serial["best_validation_loss"] < 1
    assert (
        serial["best_validation_loss"] <= serial["validation_loss"]
        if "validation_loss" in serial
        else True
    )


@pytest.mark.parametrize(
    ("engine", "workers"),
    [
        *(("inline", 2), ("inline", 3), ("local", 2)),
        pytest.param("local", 1, marks=pytest.mark.full),
        pytest.param("local", 3, marks=pytest.mark.full),
    ],
)
def test_workers_and_engines_stop_at_the_same_step_with_the_same_bits(
    configure: Configure,
    engine_named: Callable[[str], Engine],
    serial: dict[str, Any],
    tmp_path: Path,
    engine: str,
    workers: int,
) -> None:
    config = configure(**EVERYTHING, engine=engine, workers=workers, out=str(tmp_path / "run"))
    same(train(config, engine=engine_named(engine)), serial)


def test_a_run_that_runs_out_of_time_again_and_again_ends_as_one_that_did_not(
    configure: Configure, serial: dict[str, Any], tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    settings = EVERYTHING | {"out": out}
    found = train(configure(**settings, max_time="0.001s"))
    assert (found["stopped_by"], found["steps"]) == ("max_time", 1)
    assert train(configure(**settings, max_time="0.001s"))["steps"] == 1  # told again
    found = train(configure(**settings, max_time="0.001s", resume=True, workers=2))
    assert (found["stopped_by"], found["steps"]) == ("max_time", 2)
    found = train(configure(**settings, resume=True))  # has the limit that the run had
    assert (found["stopped_by"], found["steps"]) == ("max_time", 3)
    same(train(configure(**settings, max_time="", resume=True)), serial)
    with pytest.raises(UserError, match="continue it with --resume"):
        train(configure(**settings, max_time="1h"))


def test_a_run_that_stopped_early_stays_stopped(
    configure: Configure, serial: dict[str, Any], tmp_path: Path
) -> None:
    settings = EVERYTHING | {"out": str(tmp_path / "run")}
    train(configure(**settings))
    (tmp_path / "run" / "result.json").unlink()
    same(train(configure(**settings, resume=True)), serial)


def test_the_best_weights_are_reported_and_saved_where_that_is_asked(
    configure: Configure, tmp_path: Path
) -> None:
    settings = EVERYTHING | {"final_weights": "best", "out": str(tmp_path / "run")}
    settings.pop("ema")
    settings["best"] = "accuracy"
    found = train(configure(**settings, workers=2))
    assert found["final_weights"] == "best"
    assert found["weights_step"] == found["best_step"] < found["steps"]
    folder = tmp_path / "run"
    weights = load_file(folder / "model.safetensors")
    saved = load_file(folder / "checkpoints" / f"step-{found['best_step']:09d}.safetensors")
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in weights.items())
    text = (folder / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    evaluated = [line for line in lines if line.get("part") == "validation"]
    best = max(line["eval_accuracy"] for line in evaluated)
    assert found["best_validation_accuracy"] == best
    assert next(x["step"] for x in evaluated if x["eval_accuracy"] == best) == found["best_step"]


@pytest.mark.parametrize("strategy", ["local_sgd", "hogwild", "model_parallel"])
def test_other_strategies_stop_where_all_ranks_meet(
    configure: Configure, tmp_path: Path, strategy: str
) -> None:
    settings = EVERYTHING | {"strategy": strategy, "workers": 2, "lr": 0.3, "schedule": "constant"}
    settings |= {"local_steps": 3} if strategy == "local_sgd" else {}
    settings.pop("ema")
    found = train(configure(**settings, out=str(tmp_path / "run")))
    assert found["steps"] < 40
    assert found["stopped_by"].startswith("early stopping")


def test_selecting_needs_validation_images(configure: Configure, tmp_path: Path) -> None:
    config = configure(**EVERYTHING | {"validation": 0.0}, out=str(tmp_path / "run"))
    with pytest.raises(UserError, match="never on the test set"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize("workers", [1, 2])
def test_spark_stops_at_the_same_step_with_the_same_bits(
    configure: Configure,
    serial: dict[str, Any],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    workers: int,
) -> None:
    engine = request.getfixturevalue("spark_three" if workers == 3 else "spark_local")
    config = configure(**EVERYTHING, engine="spark", workers=workers, out=str(tmp_path / "run"))
    found = train(config, engine=engine)
    same(found, serial)
    assert found["workers"] == workers
