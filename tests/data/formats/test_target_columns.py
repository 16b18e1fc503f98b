"""Tables with several labels, numbers and weights: read, cut, kept in shards, and opened again."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sixfold.core.errors import UserError
from sixfold.data import DataSet, open_data, resolve
from sixfold.data.config import DataConfig
from sixfold.data.manifest import load_manifest
from sixfold.data.preparation import prepare
from sixfold.data.spec import TableOptions

ROWS = 60


def write(folder: Path, **columns: Any) -> str:
    images = np.random.default_rng(0).integers(0, 256, (ROWS, 6, 6)).tolist()
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": images, **columns}), folder / "rows.parquet")
    return f"parquet:{folder}"


def opened(cache: Path, data: str, **settings: Any) -> DataSet:
    return open_data(resolve(DataConfig(data=data, **settings), cache=cache))


def refusal(cache: Path, data: str, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        opened(cache, data, **settings)
    return "\n".join(caught.value.problems)


def test_columns_of_numbers_are_targets(tmp_path: Path) -> None:
    age = np.linspace(0, 1, ROWS)
    data = write(tmp_path / "table", age=age, size=age * 2, w=np.arange(ROWS) + 1.0)
    found = opened(
        tmp_path,
        data,
        target="regression",
        label_column="age,size",
        weight_column="w",
        validation=0.2,
    )
    assert (found.kind, found.classes, found.outputs) == ("regression", ("age", "size"), 2)
    parts = (found.train, found.validation, found.test)
    assert sum(map(len, parts)) == ROWS
    for part in parts:
        assert part.targets is not None
        assert part.weights is not None
        assert (part.targets[:, 1] == 2 * part.targets[:, 0]).all()
        assert (part.targets[:, 0] == age[part.weights.astype(int) - 1]).all()
        # Every part has its share of low and of high numbers.
        assert abs((part.targets[:, 0] < 0.5).mean() - 0.5) < 0.17


def test_a_column_of_lists_holds_labels_or_numbers(tmp_path: Path) -> None:
    tags = [["cat", "dog"][: row % 3] for row in range(ROWS)]
    boxes = [[row, row + 1, 2.5] for row in range(ROWS)]
    data = write(tmp_path / "table", tags=tags, box=boxes)
    labels = opened(tmp_path, data, target="multi_label", label_column="tags")
    assert (labels.kind, labels.classes) == ("multi_label", ("cat", "dog"))
    assert labels.train.targets is not None
    assert set(map(tuple, labels.train.targets.tolist())) == {(0, 0), (1, 0), (1, 1)}
    numbers = opened(tmp_path, data, target="regression", label_column="box")
    assert numbers.classes == ("box_0", "box_1", "box_2")
    assert numbers.test.targets is not None
    assert (numbers.test.targets[:, 2] == 2.5).all()


def test_columns_of_labels_hold_0_and_1_or_booleans(tmp_path: Path) -> None:
    red, blue = np.arange(ROWS) % 2, np.arange(ROWS) % 3 == 0
    data = write(tmp_path / "table", red=red, blue=blue, green=np.arange(ROWS))
    found = opened(tmp_path, data, target="multi_label", label_column="red, blue")
    assert found.classes == ("red", "blue")
    assert found.train.targets is not None
    assert found.train.targets.sum() + found.test.targets.sum() == red.sum() + blue.sum()  # type: ignore[union-attr]
    told = refusal(tmp_path, data, target="multi_label", label_column="red,green")
    assert "'green' holds 2" in told
    assert "0 or 1" in told


def test_two_names_are_a_binary_target(tmp_path: Path) -> None:
    data = write(tmp_path / "table", label=["no", "yes"] * (ROWS // 2), three=list("abc") * 20)
    found = opened(tmp_path, data, target="binary")
    assert (found.kind, found.classes, found.outputs) == ("binary", ("no", "yes"), 1)
    told = refusal(tmp_path, data, target="binary", label_column="three")
    assert "has 3 classes: expected two" in told


def test_shards_keep_targets_and_weights_whatever_their_size(tmp_path: Path) -> None:
    data = write(tmp_path / "table", y=np.arange(ROWS) / 7, w=np.full(ROWS, 2.0))
    options = TableOptions(label="y", target="regression", weight="w")
    first = prepare(data, tmp_path / "shards", table=options)
    assert (first.kind, first.weighted) == ("regression", True)
    assert load_manifest(tmp_path / "shards") == first
    second = prepare(f"shards:{tmp_path / 'shards'}", tmp_path / "large", resize=12)
    assert (second.kind, second.shape) == ("regression", (1, 12, 12))
    small, large = (
        open_data(DataConfig(data=f"shards:{tmp_path / name}"), as_listed=True)
        for name in ("shards", "large")
    )
    for one, other in ((small.train, large.train), (small.test, large.test)):
        for mine, its in ((one.targets, other.targets), (one.weights, other.weights)):
            assert mine is not None
            assert its is not None
            assert np.array_equal(mine, its)


def test_shards_of_classes_are_written_as_before(tmp_path: Path) -> None:
    data = write(tmp_path / "table", label=["a", "b"] * (ROWS // 2))
    prepare(data, tmp_path / "shards")
    written = (tmp_path / "shards" / "manifest.json").read_text()
    assert '"version": 1' in written
    assert "weighted" not in written


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"label_column": "age", "weight_column": "low"}, "below 0, null or not finite"),
        ({"label_column": "age", "weight_column": "name"}, "expected numbers"),
        ({"label_column": "age,heighty"}, "did you mean 'height'"),
        ({"label_column": "name"}, "expected numbers"),
        ({"label_column": "none"}, "null in all rows"),
        ({}, "no label column"),
    ],
)
def test_what_is_no_number_is_refused(
    tmp_path: Path, settings: dict[str, str], reason: str
) -> None:
    data = write(
        tmp_path / "table",
        age=np.arange(ROWS) * 1.0,
        height=np.arange(ROWS) * 1.0,
        low=np.arange(ROWS) - 1.0,
        name=["a"] * ROWS,
        none=pa.nulls(ROWS, pa.float64()),
    )
    assert reason in refusal(tmp_path, data, target="regression", **settings)


def test_only_tables_have_columns_of_weights(tmp_path: Path) -> None:
    told = refusal(tmp_path, "digits", weight_column="w")
    assert "--weight-column w: only parquet:PATH has columns" in told
