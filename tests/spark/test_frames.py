"""DataFrames in the hands of `sixfold.train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.spark import tables
from tests.spark_masters import EngineProcess

import sixfold
from sixfold.core.errors import UserError

pytestmark = pytest.mark.spark

SHORT: dict[str, Any] = {
    "batch_size": 20,
    "steps": 6,
    "lr": 0.005,
    "evaluate_every": 0.0,
    "engine": "inline",
    "workers": 1,
}

OTHERS: dict[str, dict[str, Any]] = {
    "labels": {"loss": "multi_label"},
    "numbers": {"loss": "mse", "label_column": "y,z"},
}


def train_on_frames(engine: Any, folder: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIXFOLD_CACHE", f"{folder}/cache")  # where nothing has been decoded before
        return trained_on_frames(engine, folder)


def trained_on_frames(engine: Any, folder: str) -> dict[str, Any]:
    table = tables.encoded(tables.session_of(engine)).drop("id")
    table.repartition(3).write.parquet(f"{folder}/table")
    told: dict[str, Any] = {}
    notes: list[str] = []
    for name, df in (("one", table), ("two", table.repartition(5))):
        result = sixfold.train(
            "slide", df, out=f"{folder}/{name}", **SHORT,
            on_event=lambda event: notes.append(str(event.get("text"))),
        )  # fmt: skip
        told[name] = result.weights_sha256, result.test_accuracy
    told["decoded"] = [note for note in notes if "decoded" in note]
    train, held = table.where("label < 3").randomSplit([0.8, 0.2], seed=4)
    apart = sixfold.train(
        "slide", train, validation=held, test=held, out=f"{folder}/three", **SHORT
    )
    told["apart"] = apart.test_accuracy, apart.validation_accuracy
    several = table.selectExpr("image", "split(case label when 0 then 'a' when 1 then 'b' "
        "else 'a,b' end, ',') as label", "label * 2.5 as y", "label - 1 as z")  # fmt: skip
    for name, options in OTHERS.items():
        settings = SHORT | options
        kinds = sixfold.train("slide", several, test=False, out=f"{folder}/{name}", **settings)
        told[name] = kinds.weights_sha256
    several.write.parquet(f"{folder}/several")
    images = tables.pixels()
    mixed = sixfold.train(
        "slide", table, test=(images, [n % 3 for n in range(60)]), out=f"{folder}/m", **SHORT
    )
    told["mixed"] = mixed.test_accuracy
    try:
        sixfold.train("slide", table, out=f"{folder}/refused", label_column="lable", **SHORT)
    except UserError as error:
        told["problems"] = list(error.problems)
    return told


@pytest.mark.full
def test_a_dataframe_gives_the_bits_of_the_same_rows_in_files(
    spark_any: EngineProcess, tmp_path: Path
) -> None:
    told = spark_any.call(train_on_frames, str(tmp_path))
    same = sixfold.train(
        "slide", f"parquet:{tmp_path}/table", test=0.2, out=str(tmp_path / "same"), **SHORT
    )
    assert told["one"] == told["two"] == (same.weights_sha256, same.test_accuracy)
    assert "60 images were decoded now" in told["decoded"][0]
    assert "0 images were decoded now" in told["decoded"][1]
    for name, options in OTHERS.items():
        settings = SHORT | {"test": False, "out": str(tmp_path / f"same {name}")} | options
        same = sixfold.train("slide", f"parquet:{tmp_path}/several", **settings)
        assert told[name] == same.weights_sha256
    assert told["apart"][0] == told["apart"][1]
    assert told["mixed"] is not None
    assert "did you mean 'label'?" in told["problems"][0]
