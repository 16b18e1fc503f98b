"""Prepared images are kept, and every choice of rows is the data set of these rows alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.spark import tables

pytest.importorskip("pyspark")

from sixfold import data
from sixfold.core.errors import UserError
from sixfold.data.config import DataConfig
from sixfold.data.formats.tensors import ImageColumn
from sixfold.spark.preparation import TableSettings, Written, _prepare
from sixfold.spark.prepared import ROW, Known, Prepared
from sixfold.spark.table import Targets
from sixfold.spark.writing import Columns


class Frame:
    """As much of a DataFrame as preparation uses; two partitions."""

    columns = ("image", "label")

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = list(rows)
        self.sparkSession = self

    def select(self, *_: str) -> Frame:
        return self

    def createDataFrame(self, rows: Any, _: str) -> Frame:  # noqa: N802
        return Frame([{"report": text} for (text,) in rows])

    def repartition(self, _: int) -> Frame:
        return self

    def mapInArrow(self, function: Any, _: str) -> Frame:  # noqa: N802
        batches = [
            pa.RecordBatch.from_pylist(half) for half in (self._rows[::2], self._rows[1::2]) if half
        ]
        self._out = [
            (text,) for each in function(batches) for text in each.column("report").to_pylist()
        ]
        return self

    def collect(self) -> list[tuple[str]]:
        return self._out


def rows_of(count: int = 24, channels: int = 3) -> list[dict[str, Any]]:
    images = tables.pixels(count, channels=channels)
    return [
        {"image": tables.png(image), "label": f"c{row % 3}"} for row, image in enumerate(images)
    ]


def prepare(rows: Sequence[dict[str, Any]], folder: Path, **settings: Any) -> Written:
    columns = Columns(image=ImageColumn("image", "pictures"), label=("label",))
    names = ("c0", "c1", "c2")
    targets = Targets(names, {name: n for n, name in enumerate(names)})
    folder.mkdir(exist_ok=True)
    frames: Any = {"train": Frame(rows)}
    return _prepare(frames, folder, columns, targets, TableSettings(**settings))


def same_as_a_table(written: Written, rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Images, labels and their order are those of `parquet:` on the rows alone."""
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "rows.parquet")
    found, wanted = (
        data.open_data(data.resolve(DataConfig(data=spec, test_split=0.0), cache=folder))
        for spec in (written.data, f"parquet:{folder}")
    )
    every = np.arange(len(wanted.train))
    np.testing.assert_array_equal(found.train.labels, wanted.train.labels)
    np.testing.assert_array_equal(found.train.images(every), wanted.train.images(every))
    np.testing.assert_array_equal(found.mean, wanted.mean)
    assert found.classes == wanted.classes


def test_folds_and_grown_tables_decode_nothing_twice(tmp_path: Path) -> None:
    rows, folder = rows_of(), tmp_path / "kept"
    whole = prepare(rows, folder)
    fold, more = rows[3:17], [*rows, *rows_of(30)[24:], rows[0]]
    again, grown = prepare(fold, folder), prepare(more, folder)
    assert [each.decoded for each in (whole, again, grown)] == [24, 0, 6]
    for number, (written, wanted) in enumerate(((whole, rows), (again, fold), (grown, more))):
        same_as_a_table(written, wanted, tmp_path / f"{number}")
    assert prepare(rows[::-1], folder).data == whole.data  # by content, in whatever order


def test_every_key_is_found_again(tmp_path: Path) -> None:
    keys = [bytes([first] * 16) for first in range(256) if first != ord("k")] + [
        b"k" * 15 + b"\0",
        b"\0" + b"k" * 15,
    ]
    kept = Prepared(folder=tmp_path)
    kept.save(np.array([(key, 0, row) for row, key in enumerate(keys)], ROW), "a")
    known = Known(tmp_path)
    assert [known.find(key) for key in keys] == [(0, row) for row in range(len(keys))]
    assert known.find(b"k" * 16) is None


def test_grey_images_turn_colour_only_where_others_are(tmp_path: Path) -> None:
    grey, colour, folder = rows_of(channels=1), rows_of(30)[24:], tmp_path / "kept"
    for number, rows in enumerate((grey, [*grey, *colour], grey, [*colour, *grey[:9]])):
        same_as_a_table(prepare(rows, folder), rows, tmp_path / f"{number}")


def test_a_lost_file_is_made_again_and_nothing_else_stays(tmp_path: Path) -> None:
    rows, folder = rows_of(), tmp_path / "kept"
    prepare(rows[:12], folder)
    prepare(rows, folder)
    first, second = (folder / each["file"] for each in _table(folder)["files"])
    first.unlink()
    written = prepare(rows, folder)
    assert written.decoded == 12
    same_as_a_table(written, rows, tmp_path / "table")
    listed = {each["file"] for each in _table(folder)["files"]} | {_table(folder)["index"]}
    there = {path.name for path in folder.iterdir() if path.is_file()}
    assert there - {"prepared.json", "lock"} == listed
    assert second.name in listed


def _table(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "prepared.json").read_text())
    return found


def test_rows_that_are_left_out_are_counted_each_time(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {"image": b"no picture", "label": "c1"},
        {"image": None, "label": "c2"},
    ]
    rows = [*rows_of(), *bad, {"image": tables.png(tables.pixels()[0]), "label": None}]
    with pytest.raises(UserError) as caught:
        prepare(rows, tmp_path / "kept")
    assert "1 of 27 rows have no label (null)" in caught.value.problems[0]
    assert "2 of 27 rows cannot be used" in caught.value.problems[-1]
    for decoded in (0, 0):  # those that can be read were kept when it was refused
        written = prepare(rows, tmp_path / "kept", skip=True)
        assert (written.rows, written.bad, written.unlabelled) == (27, 2, 1)
        assert written.decoded == decoded
