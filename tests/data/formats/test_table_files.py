"""Tables of many files: folders that are columns, files that differ, rows without labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.formats.test_spark_tables import COLOURS, COUNT, opened, png, write

from sixfold.core.errors import UserError
from sixfold.data.formats import parquet, table_files

PICTURES = [png(image) for image in COLOURS]
LABELS = [i % 2 for i in range(COUNT)]


def partitioned(root: Path, *values: str, column: str = "label") -> Path:
    for number, value in enumerate(values):
        file = root / f"{column}={value}" / "part-00000.parquet"
        write(file, {"image": PICTURES[5 * number :][:5], "more": [number] * 5})
    return root


def test_folders_of_partition_by_are_labels(tmp_path: Path) -> None:
    root = partitioned(tmp_path / "set", "train", "sea%2Fgull", "__HIVE_DEFAULT_PARTITION__")
    write(root / "_temporary/0/label=train/part-00001.parquet", {"image": PICTURES})
    with pytest.raises(UserError, match="5 rows have no label") as error:
        opened(root, tmp_path)
    assert len(error.value.problems) == 1
    dataset = opened(root, tmp_path, on_error="skip")
    assert dataset.classes == ("sea/gull", "train")
    assert np.bincount([*dataset.train.labels, *dataset.test.labels]).tolist() == [5, 5]
    assert dataset.train.names(np.array([0])) == ["label=sea%2Fgull/part-00000.parquet[0]"]
    assert dataset.bad == (
        "_temporary/0/label=train/: 1 file: hidden, as in Spark",
        "set: rows without a label (column 'label'): 5",
    )
    assert dataset.skipped == 5


def test_empty_names_are_no_labels(tmp_path: Path) -> None:
    root = partitioned(tmp_path / "set", "", "cat", "dog")
    with pytest.raises(UserError, match="5 rows have no label"):
        opened(root, tmp_path)
    path = write(tmp_path / "a.parquet", {"image": PICTURES, "label": ["a", " ", "b", ""] * 5})
    dataset = opened(path, tmp_path, on_error="skip")
    assert (dataset.classes, dataset.skipped) == (("a", "b"), 10)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"ORC\x08", "an ORC file, not Parquet: a table must be Parquet"),
        (b"Obj\x01\x04", "an Avro file, not Parquet"),
        (b"ARROW1\0\0", "an Arrow file, not Parquet"),
        (b"label,pixel0\n3,255\n", "text .CSV or JSON., not Parquet: read it with pandas"),
        (b"\x93NUMPY\1\0", "a NumPy array, not Parquet$"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS, not Parquet: run `git lfs pull`"),
    ],
)
def test_tables_of_other_formats_are_called_by_their_name(
    tmp_path: Path, start: bytes, reason: str
) -> None:
    (tmp_path / "table").write_bytes(start)
    with pytest.raises(UserError, match=reason):
        opened(tmp_path / "table", tmp_path)


def test_files_that_are_not_read_are_told(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root / "a.parquet", {"image": PICTURES, "label": LABELS})
    write(root / "_b.parquet", {"image": PICTURES, "label": LABELS})
    for name in ("_SUCCESS", ".a.parquet.crc", "c.csv", "d.orc"):
        (root / name).touch()
    assert opened(root, tmp_path).bad == (
        ".: 1 file: hidden, as in Spark",
        ".: 2 files: not a Parquet file",
    )
    (root / "a.parquet").unlink()
    with pytest.raises(UserError, match=r"no files \*.parquet in it; it holds .*c.csv"):
        opened(root, tmp_path)


def test_a_folders_value_goes_before_a_column_of_that_name(tmp_path: Path) -> None:
    for label in ("x", "z"):
        columns = {"image": PICTURES[:4], "label": ["q", "r"] * 2}
        write(tmp_path / f"set/label={label}/part-0.parquet", columns)
    assert opened(tmp_path / "set", tmp_path).classes == ("x", "z")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([PICTURES, LABELS, LABELS], names=["image", "label", "label"])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="several columns are called 'label'"):
        opened(tmp_path / "a.parquet", tmp_path, labelled=False)


def test_folders_with_numbers_are_classes_by_number(tmp_path: Path) -> None:
    root = partitioned(tmp_path / "set", "10.0", "2.0", "0.0")
    assert opened(root, tmp_path).classes == ("0", "2", "10")
    root = partitioned(tmp_path / "text", "007", "7", "8")
    assert opened(root, tmp_path).classes == ("007", "7", "8")


def test_folders_of_parts_are_parts(tmp_path: Path) -> None:
    for value, rows in (("train", slice(0, 12)), ("test", slice(12, 20))):
        file = tmp_path / f"set/split={value}/part-0.parquet"
        write(file, {"image": PICTURES[rows], "label": LABELS[rows]})
    write(tmp_path / "set/split=val/p.parquet", {"image": PICTURES[:3], "label": LABELS[:3]})
    dataset = opened(tmp_path / "set", tmp_path)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [12, 3, 8]
    assert not dataset.bad
    assert dataset.skipped == 0


def test_files_named_after_parts_are_parts(tmp_path: Path) -> None:
    counts = {"train-00000-of-00002": 6, "train-00001-of-00002": 6, "validation-00000-of-00001": 5}
    for name, count in counts.items():
        columns = {"image": PICTURES[:count], "label": LABELS[:count]}
        write(tmp_path / f"set/data/{name}.parquet", columns)
    found = opened(tmp_path / "set", tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 0, 5]
    write(tmp_path / "set/data/test-0.parquet", {"image": PICTURES[:4], "label": LABELS[:4]})
    write(tmp_path / "set/data/more.parquet", {"image": PICTURES[:2], "label": LABELS[:2]})
    found = opened(tmp_path / "set", tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 5, 4]
    assert found.bad == ("data/more.parquet: rows of a part that is not used: 2",)
    everything = opened(tmp_path / "set", tmp_path, labelled=False)
    assert [len(part) for part in (everything.train, everything.validation)] == [12, 5]


def test_files_may_differ_where_it_does_not_matter(tmp_path: Path) -> None:
    images, labels = pa.array(PICTURES), pa.array(LABELS)
    root = tmp_path / "set"
    write(root / "a.parquet", {"image": images[:0], "label": pa.nulls(0), "x": pa.nulls(0)})
    required = pa.schema([pa.field("image", pa.binary(), nullable=False), ("label", pa.int64())])
    write(root / "b.parquet", {})  # replaced: a file with other nullability
    pa.parquet.write_table(pa.table([images[:8], labels[:8]], schema=required), root / "b.parquet")
    columns: dict[str, Any] = {"label": labels[8:].cast(pa.float64()), "new": ["x"] * 12}
    write(root / "c.parquet", columns | {"image": images[8:].cast(pa.large_binary())})
    dataset = opened(root, tmp_path)
    assert len(dataset.train) + len(dataset.test) == COUNT
    assert dataset.classes == ("0", "1")


def test_an_empty_first_file_says_nothing_about_pixels(tmp_path: Path) -> None:
    numbers = COLOURS[:, 0].reshape(COUNT, -1).astype(float)
    numbers[:2] = 0.0  # nor do rows that are black
    values = pa.array(numbers.tolist())
    write(tmp_path / "set/a.parquet", {"image": values[:0], "label": pa.array(LABELS)[:0]})
    write(tmp_path / "set/b.parquet", {"image": values[:2], "label": LABELS[:2]})
    write(tmp_path / "set/c.parquet", {"image": values[2:], "label": LABELS[2:]})
    dataset = opened(tmp_path / "set", tmp_path)
    assert dataset.skipped == 0
    assert len(dataset.train) + len(dataset.test) == COUNT


def test_files_that_contradict_each_other_are_told_by_the_column(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root / "a.parquet", {"image": PICTURES, "label": LABELS, "other": LABELS})
    write(root / "b.parquet", {"image": PICTURES, "label": ["a"] * COUNT, "other": ["a"] * COUNT})
    with pytest.raises(UserError) as error:
        opened(root, tmp_path)
    (line,) = error.value.problems
    assert (
        f"{root}/b.parquet: column 'label' is string, but in {root}/a.parquet it is int64" in line
    )
    assert "other" not in line


def test_files_of_two_ranges_and_files_without_the_images_are_told(tmp_path: Path) -> None:
    numbers = [list(range(k, k + 64)) for k in range(COUNT)]
    root = tmp_path / "set"
    write(root / "a.parquet", {"image": [[v / 255 for v in n] for n in numbers], "label": LABELS})
    write(root / "b.parquet", {"image": [[v / 1 for v in n] for n in numbers], "label": LABELS})
    with pytest.raises(UserError, match=r"0 to 1 in .*a.parquet .*0 to 255 in .*b.parquet"):
        opened(root, tmp_path)
    assert opened(root, tmp_path, pixel_range="0-255").train.shape == (1, 8, 8)
    write(root / "b.parquet", {"picture": PICTURES, "label": LABELS})
    with pytest.raises(UserError, match=r"b.parquet\[0\]: its file has no column 'image'"):
        opened(root, tmp_path)
    with pytest.raises(UserError, match="cannot be both image and label"):
        opened(write(tmp_path / "c", {"image": PICTURES}), tmp_path, label_column="image")


@pytest.mark.parametrize("log", ["_delta_log/000.json", "metadata/v1.metadata.json"])
def test_tables_that_hold_deleted_rows_are_refused(tmp_path: Path, log: str) -> None:
    write(tmp_path / "set/a.parquet", {"image": PICTURES, "label": LABELS})
    (tmp_path / "set" / log).parent.mkdir()
    (tmp_path / "set" / log).write_text("{}")
    with pytest.raises(UserError, match="is a Delta or Iceberg table"):
        opened(tmp_path / "set", tmp_path)


def test_columns_can_be_named(tmp_path: Path) -> None:
    columns = {
        "image": PICTURES[::-1],
        "label": LABELS,
        "my.pic": PICTURES,
        "kind": ["a", "b"] * 10,
    }
    path = write(tmp_path / "a.parquet", columns)
    dataset = opened(path, tmp_path, image_column="my.pic", label_column="kind")
    assert dataset.classes == ("a", "b")
    row = int(dataset.train.names(np.array([0]))[0][len("a.parquet[") : -1])
    assert (dataset.train.images(np.array([0]))[0] == COLOURS[row]).all()
    for option, name, hint in (("image", "my.pics", "'my.pic'"), ("label", "kinds", "'kind'")):
        with pytest.raises(UserError, match=f"--{option}-column '{name}': .* did you mean {hint}"):
            opened(path, tmp_path, **{f"{option}_column": name})
    with pytest.raises(UserError, match=r"column 'kind' is string: expected bytes"):
        opened(path, tmp_path, image_column="kind")


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["{}"] * COUNT, pa.json_()),
        pa.array([b"0" * 16] * COUNT, pa.uuid()),
        pa.array([[("a", 1)]] * COUNT, pa.map_(pa.string(), pa.int64())),
        pa.array([[b"x"]] * COUNT),
        pa.array([{"a": 1}] * COUNT),
        pa.nulls(COUNT),
    ],
    ids=lambda values: str(values.type)[:12],
)
def test_odd_columns_of_usual_names_are_not_taken(tmp_path: Path, values: pa.Array) -> None:
    path = write(tmp_path / "a.parquet", {"data": values, "target": LABELS})
    with pytest.raises(UserError, match=r"no image column: .*; there are data \("):
        opened(path, tmp_path)
    path = write(tmp_path / "b.parquet", {"image": values, "content": PICTURES, "target": LABELS})
    assert opened(path, tmp_path).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        ([None, *LABELS[1:]], 19),
        ([float("nan"), *map(float, LABELS[1:])], 19),
        ([None] * COUNT, 0),
        ([-1] * COUNT, 0),
        ([0.5] * COUNT, 0),
        (None, 0),
    ],
)
def test_rows_without_labels_are_there_to_be_scored(
    tmp_path: Path, labels: list[Any] | None, known: int
) -> None:
    columns = {"image": PICTURES} | ({} if labels is None else {"label": labels})
    path = write(tmp_path / "a.parquet", columns)
    dataset = opened(path, tmp_path, labelled=False)
    assert len(dataset.train) + len(dataset.test) == COUNT
    unlabelled = dataset.classes.index("(unlabelled)")
    assert (dataset.test.labels == unlabelled).sum() == COUNT - known
    with pytest.raises(UserError) as error:
        opened(path, tmp_path)
    assert len(error.value.problems) == 1


def test_a_part_set_aside_is_the_same_where_unlabelled_rows_are_scored(tmp_path: Path) -> None:
    write(tmp_path / "set/train.parquet", {"image": PICTURES, "label": [None, *LABELS[1:]]})
    write(tmp_path / "set/test.parquet", {"image": PICTURES[:4]})
    settings = {"on_error": "skip", "test_split": 0.25}
    trained = opened(tmp_path / "set", tmp_path, **settings)
    scored = opened(tmp_path / "set", tmp_path, labelled=False, **settings)
    names = [set(data.test.names(np.arange(len(data.test)))) for data in (trained, scored)]
    assert (len(names[0]), trained.skipped) == (5, 5)
    more = {"train.parquet[0]", *(f"test.parquet[{row}]" for row in range(4))}
    assert names[1] == names[0] | more


def test_damaged_pictures_and_those_of_other_channels_are_counted(tmp_path: Path) -> None:
    pictures: list[bytes | None] = list(PICTURES)
    pictures[1], pictures[2] = png(COLOURS[1, :1]), png(np.resize(COLOURS[2], (4, 8, 8)))
    pictures[3], pictures[4], pictures[5] = PICTURES[3][:60], b"", None
    pictures[6] = png(COLOURS[6, :, :5])
    path = write(tmp_path / "a.parquet", {"image": pictures, "label": LABELS})
    with pytest.raises(UserError, match="17 of 8x8, 1 of 8x5: give --resize"):
        opened(path, tmp_path, on_error="skip")
    dataset = opened(path, tmp_path, on_error="skip", resize=8)
    assert (len(dataset.train) + len(dataset.test), dataset.skipped) == (17, 3)
    assert dataset.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("column", "bomb", "reason"),
    [
        ("image", pa.array([*PICTURES[:-1], bytes(10**6)]), r"unpack to 10\d{5} bytes, as no imag"),
        ("image", pa.array([[i] for i in LABELS[:-1]] + [[0] * 10**6]), "unpack to 100.* values"),
        ("label", pa.array([*map(str, LABELS[:-1]), "a" * 10**6]), r"unpack to 10\d{5} bytes"),
        ("label", pa.array([*map(str, LABELS[:-1]), "a" * 5000]), "a text of 5000 characters"),
    ],
)
def test_what_unpacks_to_far_more_than_was_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, bomb: pa.Array, reason: str
) -> None:
    monkeypatch.setattr(table_files, "MOST_BYTES", 2**18)
    monkeypatch.setattr(table_files, "MOST_NUMBERS", 2**18)
    monkeypatch.setattr(table_files, "MOST_INFLATION", 20)
    table = pa.table({"image": pa.array(PICTURES), "label": pa.array(LABELS)})
    table = table.set_column(table.column_names.index(column), column, bomb)
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(UserError, match=reason) as error:
        opened(tmp_path / "a.parquet", tmp_path, on_error="skip")
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(("largest", "expected"), [(2**27, 64), (1, 1)])
def test_rows_of_one_large_entry_are_decoded_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, expected: int
) -> None:
    """And those of ordinary tables, however large a row group is, many at a time."""
    table = pa.table({"image": [PICTURES[0]] * COUNT, "label": LABELS})
    pq.write_table(table, tmp_path / "a.parquet")
    rows: list[int] = []
    plain = pq.ParquetFile.iter_batches

    def counting(self: pq.ParquetFile, size: int, **more: Any) -> Any:
        rows.append(size)
        return plain(self, size, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    monkeypatch.setattr(parquet, "READ_BYTES", largest)
    assert len(opened(tmp_path / "a.parquet", tmp_path).train) == COUNT * 4 // 5
    assert set(rows) == {expected}
