"""Every loss: the same bits for 1, 2 and 3 workers on `inline` and `local`; and every strategy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.conformance.losses import ROWS, write_table
from tests.marks import quick, quick_pairs
from torch import nn

import sixfold
from sixfold.core.errors import UserError
from sixfold.distributed.engines import Engine
from sixfold.prediction.config import PredictConfig, PredictionConfig
from sixfold.prediction.run import predict
from sixfold.training.config import TrainConfig, configure
from sixfold.training.run import train

HERE = "tests.conformance.losses"
SMALL = {"model": "lenet300", "batch_size": 12, "steps": 6, "lr": 0.02, "validation": 0.2}
NUMBERS = {"label_column": "bright,top"}
TWO = {"label_column": "kind", "model": f"{HERE}:TwoHeads"}

CASES: dict[str, dict[str, Any]] = {
    "smoothed": {"label_column": "kind", "label_smoothing": 0.1},
    "class weights": {"label_column": "kind", "class_weights": "kind 0=2,kind 1=0.5"},
    "sample weights": {"label_column": "kind", "weight_column": "weight"},
    "binary": {"loss": "binary", "label_column": "dark", "class_weights": "balanced"},
    "multi_label": {"loss": "multi_label", "label_column": "parts", "class_weights": "balanced"},
    "mse": {"loss": "mse", "weight_column": "weight", **NUMBERS},
    "l1": {"loss": "l1", **NUMBERS},
    "huber": {"loss": "huber", "huber_delta": 0.1, **NUMBERS},
    "own": {"loss": f"{HERE}:own_sum", "label_column": "kind", "class_weights": "balanced"},
    "two heads": {"aux_weight": "0.3", **TWO},
    "two named heads": {"aux_weight": "aux=0.3", "model_args": "named=true", **TWO},
    "own of both": {"loss": f"{HERE}:own_of_both", **TWO},
}

BF16, PIECES = {"precision": "bf16"}, {"micro_batch": "4", "shards": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_table(tmp_path_factory.mktemp("table"))


def settings(data: str, name: str, out: Path, **more: Any) -> TrainConfig:
    return configure(data=data, out=str(out), **(SMALL | CASES[name] | {"engine": "inline"} | more))


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_the_bits_do_not_depend_on_the_workers(
    engine_named: Callable[[str], Engine], data: str, tmp_path: Path, name: str
) -> None:
    first = train(settings(data, name, tmp_path / "serial", workers=1))
    assert math.isfinite(first["test_loss"])
    for kind, workers in (("inline", 3), ("local", 2)):
        engine = engine_named(kind)
        out = tmp_path / f"{kind}-{workers}"
        found = train(
            settings(data, name, out, workers=workers, engine=kind, shards=None), engine=engine
        )
        for figure in ("weights_sha256", "test_loss", "validation_loss"):
            assert found[figure] == first[figure], (kind, workers, figure)


@pytest.mark.parametrize(
    ("name", "strategy"),
    quick_pairs(
        ["binary", "multi_label", "mse", "own", "two heads"],
        ["local_sgd", "hogwild", "param_server", "model_parallel"],
        ("binary", "hogwild"),
        ("multi_label", "param_server"),
        ("mse", "model_parallel"),
        ("own", "local_sgd"),
        ("two heads", "model_parallel"),
        ("two heads", "local_sgd"),
    ),
)
def test_every_strategy_trains_with_it(data: str, tmp_path: Path, name: str, strategy: str) -> None:
    config = settings(data, name, tmp_path / "run", strategy=strategy, workers=2)
    if (name, strategy) == ("two heads", "model_parallel"):
        with pytest.raises(UserError, match="model_parallel takes networks with one"):
            train(config)
        return
    found = train(config)
    assert math.isfinite(found["test_loss"])
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert any("eval_loss" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "more"),
    quick_pairs(
        ["mse", "multi_label", "own", "two heads"],
        [BF16, PIECES],
        ("own", PIECES),
        ("two heads", BF16),
    ),
)
def test_low_precision_and_micro_batches(
    data: str, tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    found = train(settings(data, name, tmp_path / "run", **more))
    plain = train(settings(data, name, tmp_path / "plain", shards=more.get("shards")))
    assert found["test_loss"] == pytest.approx(plain["test_loss"], rel=0.05)


def test_sample_weights_are_what_repeating_images_is(data: str, tmp_path: Path) -> None:
    weighted = train(settings(data, "sample weights", tmp_path / "one"))
    plain = train(settings(data, "sample weights", tmp_path / "two", weight_column=None))
    assert weighted["weights_sha256"] != plain["weights_sha256"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"loss": f"{HERE}:mean"}, "is a mean over samples"),
        ({"loss": f"{HERE}:moody"}, "gives another value"),
        ({"loss": f"{HERE}:nothing"}, "has no 'nothing'"),
        ({"loss": "mse", "label_column": "kind"}, "expected numbers"),
        ({"loss": "cross_entrpy"}, "did you mean cross_entropy"),
        ({"loss": "binary"}, "has 3 classes: expected two"),
        ({"class_weights": "kind 7=2"}, "unknown class 'kind 7'"),
        ({"class_weights": "kind 0"}, "expected balanced, or NAME=W"),
        ({"loss": "mse", "class_weights": "balanced"}, "only for --loss cross_entropy, binary"),
        ({"aux_weight": "1"}, "has a single output"),
        ({"model": f"{HERE}:TwoHeads"}, "give --aux-weight W"),
        ({"model": f"{HERE}:TwoHeads", "aux_weight": "x=1"}, "unknown output 'x'"),
    ],
)
def test_what_does_not_fit_is_refused(
    data: str, tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    known = {"label_column": "kind", "label_smoothing": 0.0} | more
    with pytest.raises(UserError) as caught:
        train(settings(data, "smoothed", tmp_path / "run", **known))
    assert reason in "\n".join(caught.value.problems)
    assert not (tmp_path / "run").exists()


def test_data_of_classes_have_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mse: needs regression targets") as caught:
        train(configure(data="digits", model="lenet300", loss="mse", out=str(tmp_path / "run")))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", quick(["binary", "multi_label", "mse"], "multi_label"))
def test_a_prediction_says_what_the_evaluation_said(data: str, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    trained = train(settings(data, name, run))
    asked = PredictionConfig(
        run=str(run),
        data=data,
        out=str(tmp_path / "scores.parquet"),
        split="test",
        label_column=CASES[name]["label_column"],
    )
    told = predict(PredictConfig(prediction=asked))
    figure = {"binary": "accuracy", "multi_label": "subset_accuracy", "mse": "rmse"}[name]
    assert told[figure] == pytest.approx(trained[f"test_{figure}"], rel=1e-5)
    table = pq.read_table(tmp_path / "scores.parquet")
    assert 0 < len(table) < ROWS
    column = {"binary": "score_yes", "multi_label": "score_top", "mse": "true_bright"}[name]
    assert column in table.column_names
    assert "Predictions" in (run / "report.html").read_text()


def test_in_python_weights_may_be_a_mapping_and_a_loss_a_function(tmp_path: Path) -> None:
    def train_with(name: str, **options: Any) -> str:
        result = sixfold.train(
            "lenet300",
            "digits",
            resize=16,
            steps=4,
            engine="inline",
            quiet=True,
            out=str(tmp_path / name),
            **options,
        )
        return str(result.weights_sha256)

    text = train_with("text", class_weights="1=3,2=0.5")
    assert train_with("mapping", class_weights={"1": 3, "2": 0.5}) == text
    plain = train_with("plain")
    own = nn.CrossEntropyLoss(reduction="sum")
    assert train_with("own", loss=own) == plain != text
