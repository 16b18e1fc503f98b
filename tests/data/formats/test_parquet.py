import io
import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from sixfold.core.errors import UserError
from sixfold.data import DataSet, open_data, resolve
from sixfold.data.config import DataConfig
from sixfold.data.manifest import load_manifest
from sixfold.data.run import resolve_data
from sixfold.distributed.engines import open_engine

COUNT, ROWS, COLUMNS = 30, 7, 6


def pixels(channels: int = 3, rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, channels, rows, columns), np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    last = image.transpose(1, 2, 0)
    Image.fromarray(last[..., 0] if len(image) == 1 else last).save(buffer, "PNG")
    return buffer.getvalue()


def structs(images: NDArray[np.uint8]) -> pa.Array:
    return pa.array([{"bytes": png(image), "path": "x.png"} for image in images])


def tensor(images: NDArray[np.uint8]) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(images)


def last(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def flat(images: NDArray[np.uint8]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), images[0].size)


Form = tuple[Callable[[NDArray[np.uint8]], pa.Array], tuple[int, int, int]]
FORMS: dict[str, Form] = {
    "bytes": (lambda x: pa.array([png(image) for image in x]), (3, ROWS, COLUMNS)),
    "grey bytes": (lambda x: pa.array([png(image) for image in x]), (1, ROWS, COLUMNS)),
    "large bytes": (
        lambda x: pa.array([png(image) for image in x], pa.large_binary()), (3, ROWS, COLUMNS)
    ),
    "structs": (structs, (3, ROWS, COLUMNS)),
    "tensors, channels first": (tensor, (3, ROWS, COLUMNS)),
    "tensors, channels last": (lambda x: tensor(last(x)), (3, ROWS, COLUMNS)),
    "lists, channels first": (lambda x: pa.array(x.tolist()), (3, ROWS, COLUMNS)),
    "lists, channels last": (lambda x: pa.array(last(x).tolist()), (3, ROWS, COLUMNS)),
    "lists of rows": (lambda x: pa.array(x[:, 0].tolist()), (1, ROWS, COLUMNS)),
    "0 to 1": (lambda x: pa.array((x / 255).tolist()), (3, ROWS, COLUMNS)),
    "floats to 255": (lambda x: pa.array(x.astype(float).tolist()), (3, ROWS, COLUMNS)),
    "flat colour": (flat, (3, 5, 5)),
    "flat grey": (flat, (1, 9, 9)),
    "small unsigned": (lambda x: pa.array(x.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))),
                       (3, ROWS, COLUMNS)),
}  # fmt: skip


def write(path: Path, images: pa.Array, labels: Any = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = labels if labels is not None else [i % 3 for i in range(len(images))]
    table = pa.table({"id": range(len(images)), "image": images, "label": labels})
    pq.write_table(table, path, **options)
    return path


def opened(path: Path | str, cache: Path, **settings: Any) -> DataSet:
    config = DataConfig(data=f"parquet:{path}", **settings)
    return open_data(resolve(config, cache=cache), as_listed=True)


def test_rows_are_ordered_by_content_however_they_are_divided_into_files(tmp_path: Path) -> None:
    images, labels = pixels(), [i % 3 for i in range(30)]
    write(tmp_path / "one" / "a.parquet", tensor(images), labels)
    for number, rows in enumerate((range(20, 30), range(20))):
        given = tensor(images[list(rows)])
        write(tmp_path / "two" / f"{number}.parquet", given, [labels[row] for row in rows])
    found = []
    for name in ("one", "two"):
        config = DataConfig(data=f"parquet:{tmp_path / name}", test_split=0.0)
        resolved = resolve(config, cache=tmp_path / "cache")
        part = open_data(resolved).train
        assert len(part) == 30
        found.append((part.images(np.arange(30)), part.labels.tolist()))
        larger = resolve(DataConfig(data=resolved.data, resize=12), cache=tmp_path / "cache")
        assert load_manifest(Path(larger.data.removeprefix("shards:"))).by_content
    one, two = found
    assert np.array_equal(one[0], two[0])
    assert one[1] == two[1]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_image_is_read(tmp_path: Path, form: str) -> None:
    make, shape = FORMS[form]
    images = pixels(*shape)
    path = write(tmp_path / "a.parquet", make(images), row_group_size=11)
    dataset = opened(path, tmp_path)
    assert dataset.shape == shape
    assert (len(dataset.train), len(dataset.test)) == (24, 6)
    for part in (dataset.train, dataset.test):
        everything = np.arange(len(part))
        rows = [int(name[len("a.parquet[") : -1]) for name in part.names(everything)]
        assert (part.images(everything) == images[rows]).all()
        assert part.labels.tolist() == [row % 3 for row in rows]


def test_parts_come_from_names(tmp_path: Path) -> None:
    images = pixels()
    for layout in ("{}-00000-of-00001.parquet", "{}/part-0.parquet", "data/my_{}.parquet"):
        root = tmp_path / layout.replace("/", "_").format("x")
        write(root / layout.format("train"), tensor(images[:20]))
        write(root / layout.format("test"), tensor(images[20:]))
        dataset = opened(root, tmp_path)
        assert (dataset.train.images(np.arange(20)) == images[:20]).all()
        assert (dataset.test.images(np.arange(10)) == images[20:]).all()


def test_many_files_are_one_set(tmp_path: Path) -> None:
    images = pixels()
    for number in range(3):
        write(tmp_path / "set" / f"part-{number}.parquet", tensor(images[number * 10 :][:10]))
    (tmp_path / "set" / "_metadata").write_bytes(b"")
    dataset = opened(tmp_path / "set", tmp_path)
    assert len(dataset.train) + len(dataset.test) == 30


def test_classes_come_from_the_labels(tmp_path: Path) -> None:
    words = [("owl", "cat", "cat")[i % 3] for i in range(COUNT)]
    for labels in (words, pa.array(words).dictionary_encode()):
        path = write(tmp_path / "words.parquet", tensor(pixels()), labels)
        dataset = opened(path, tmp_path)
        assert dataset.classes == ("cat", "owl")
        assert np.bincount(dataset.train.labels).tolist() == [16, 8]
    path = write(
        tmp_path / "gaps.parquet", tensor(pixels()), [(3, 7, 11)[i % 3] for i in range(30)]
    )
    assert opened(path, tmp_path).classes == ("3", "7", "11")
    path = write(tmp_path / "bool.parquet", tensor(pixels()), [i % 2 == 0 for i in range(30)])
    assert opened(path, tmp_path).classes == ("False", "True")


def test_names_of_classes_are_taken_from_hugging_face(tmp_path: Path) -> None:
    features = {"label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}}
    table = pa.table({"img": structs(pixels()), "label": [i % 3 for i in range(COUNT)]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "hf.parquet")
    assert opened(tmp_path / "hf.parquet", tmp_path).classes == ("ant", "bee", "cow")
    table = table.set_column(1, "label", pa.array([i % 4 for i in range(COUNT)]))
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "hf.parquet")
    with pytest.raises(UserError, match="labels out of range: 3: the file names 3 classes"):
        opened(tmp_path / "hf.parquet", tmp_path)


def test_bad_cells_are_bad_images(tmp_path: Path) -> None:
    values: list[bytes | None] = [png(image) for image in pixels()]
    values[4], values[5], values[6] = None, b"", b"no image"
    path = write(tmp_path / "a.parquet", pa.array(values))
    with pytest.raises(UserError) as error:
        opened(path, tmp_path)
    assert "a.parquet[4]: no image (null)" in error.value.problems
    assert "a.parquet[5]: zero bytes" in error.value.problems
    assert len(opened(path, tmp_path, on_error="skip").bad) == 3
    lists = pixels()[:, 0].astype(object).tolist()
    lists[0][0][0], lists[1][0], lists[2] = 256, [1, 2], [[None]]
    path = write(tmp_path / "b.parquet", pa.array(lists))
    with pytest.raises(UserError) as error:
        opened(path, tmp_path)
    assert re.match(r"b\.parquet\[0\]: values from \d to 256: expected 0 to 255", str(error.value))
    assert len(error.value.problems) == 4


def test_columns_that_do_not_fit_are_named(tmp_path: Path) -> None:
    table = pa.table({"photo_id": [1, 2], "kind": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no image column: .*photo_id \(int64\), kind \(string\)"):
        opened(tmp_path / "a.parquet", tmp_path)
    table = pa.table({"image": structs(pixels()[:2]), "weight": [0.5, 1.5]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no label column"):
        opened(tmp_path / "a.parquet", tmp_path)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0] * 29 + [-1], "labels out of range: -1"),
        ([1] * 30, "names one class: expected at least two"),
        ([0, None, 1] * 10, "10 rows have no label"),
    ],
)
def test_wrong_labels_are_told(tmp_path: Path, labels: list[int | None], reason: str) -> None:
    path = write(tmp_path / "a.parquet", tensor(pixels()), pa.array(labels))
    with pytest.raises(UserError, match=reason):
        opened(path, tmp_path)


def test_a_class_of_the_test_part_alone_is_told(tmp_path: Path) -> None:
    write(tmp_path / "set/train.parquet", tensor(pixels()[:20]), [i % 2 for i in range(20)])
    write(tmp_path / "set/test.parquet", tensor(pixels()[20:]), [i % 3 for i in range(10)])
    with pytest.raises(UserError, match="no images in the train part: 2"):
        opened(tmp_path / "set", tmp_path)


def test_what_is_no_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(UserError, match=r"a\.parquet: not a readable Parquet file"):
        opened(tmp_path / "a.parquet", tmp_path)
    whole = write(tmp_path / "b.parquet", tensor(pixels())).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-40])
    with pytest.raises(UserError, match=r"b\.parquet: not a readable Parquet file"):
        opened(tmp_path / "b.parquet", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no files \*\.parquet"):
        opened(tmp_path / "empty", tmp_path)
    pq.write_table(pa.table({"image": structs(pixels())[:0], "label": pa.array([], pa.int64())}),
                   tmp_path / "c.parquet")  # fmt: skip
    with pytest.raises(UserError, match="have no rows"):
        opened(tmp_path / "c.parquet", tmp_path)


def test_files_of_other_columns_are_told(tmp_path: Path) -> None:
    write(tmp_path / "set/a.parquet", tensor(pixels()))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "set/b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet: has no column 'image', .* x \(int64\)"):
        opened(tmp_path / "set", tmp_path)


def test_damaged_pages_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", structs(pixels()), compression="zstd")
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a\.parquet"):
        opened(path, tmp_path)


def test_it_is_read_behind_a_url(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", structs(pixels()))
    fsspec.filesystem("memory").pipe_file("/tables/a.parquet", path.read_bytes())
    dataset = opened("memory://tables", tmp_path)
    assert dataset.shape == (3, ROWS, COLUMNS)
    assert len(dataset.train) == 24


def test_damage_anywhere_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", structs(pixels()), compression="zstd")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(4, len(whole) - 40, 40):
        path.write_bytes(whole[:place] + rng.bytes(30) + whole[place + 30 :])
        try:
            dataset = opened(path, tmp_path, on_error="skip")
        except UserError as error:
            told = error.problems
        else:
            told = dataset.bad
        assert not any("\n" in line for line in told)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", [1, 255])
def test_images_with_numbers_that_are_not_finite_are_bad(
    tmp_path: Path, odd: float, scale: int
) -> None:
    """They are counted, and say nothing of the range of the others."""
    images = pixels()[:, 0] / 255 * scale
    images[1, 2, 3] = images[1, 0, 0] = odd
    path = write(tmp_path / "a.parquet", pa.array(images.tolist()))
    with pytest.raises(UserError, match=r"a.parquet\[1\]: 2 of \d+ values are NaN or infinite"):
        opened(path, tmp_path)
    found = opened(path, tmp_path, on_error="skip")
    assert len(found.bad) == 1
    assert len(found.train) + len(found.test) == COUNT - 1
    kept = np.concatenate(
        [part.images(np.arange(len(part))) for part in (found.train, found.test) if len(part)]
    )
    assert {image.tobytes() for image in kept} == {
        image.tobytes() for number, image in enumerate(pixels()[:, 0]) if number != 1
    }


@pytest.mark.parametrize(
    ("scale", "given", "taken"),
    [
        (1.02 / 255, None, "0 to 1"),
        (1.02 / 255, "0-1", None),
        (1.2 / 255, None, "0 to 1"),
        (1.0, None, "0 to 255"),
        (1.05, None, "0 to 255"),
        (1.05, "0-255", None),
        (1 / 255, None, "0 to 1"),
    ],
)
def test_the_range_of_floating_point_pixels_is_found_and_reported(
    tmp_path: Path, scale: float, given: str | None, taken: str | None
) -> None:
    """What interpolation adds above the range is cut off, not taken for another range."""
    images = pixels(3, ROWS, COLUMNS)
    path = write(tmp_path / "a.parquet", pa.array((images * scale).tolist()))
    config = DataConfig(data=f"parquet:{path}", pixel_range=given)
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch, closing(open_engine("inline")) as engine:
        patch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
        for _ in range(2):  # also where the shards are there already
            found = resolve_data(
                config,
                engine,
                1,
                lambda event: notes.append(event["text"]) if event["kind"] == "note" else None,
            )
    part = open_data(found).train
    everything = np.arange(len(part))
    rows = [int(name[len("a.parquet[") : -1]) for name in part.names(everything)]
    top = scale if scale > 0.5 else scale * 255
    expected = np.minimum(np.floor(images[rows] * top + 0.5), 255)
    assert np.abs(part.images(everything) - expected).max() <= 1
    if taken is None:
        assert not notes
    else:
        assert len(notes) == 2
        assert f"taken as {taken} (the largest" in notes[0]


def test_few_whole_numbers_are_0_to_255_and_far_values_are_bad(tmp_path: Path) -> None:
    marks = pixels(3, ROWS, COLUMNS) % 3
    path = write(tmp_path / "a.parquet", pa.array(marks.astype(float).tolist()))
    dataset = opened(path, tmp_path)
    assert dataset.train.images(np.arange(24)).max() == 2
    assert opened(path, tmp_path, pixel_range="0-255").train.images(np.arange(24)).max() == 2
    with pytest.raises(UserError, match="values from 0 to 2: expected 0 to 1"):
        opened(path, tmp_path, pixel_range="0-1")
    images = pixels(3, ROWS, COLUMNS) / 255.0
    images[0, 0, 0, 0] = -0.4
    path = write(tmp_path / "b.parquet", pa.array(images.tolist()))
    with pytest.raises(UserError, match=r"values from -0\.4 to"):
        opened(path, tmp_path)
    with pytest.raises(UserError, match="--pixel-range 0-1: only parquet:PATH"):
        resolve(DataConfig(data="digits", pixel_range="0-1"), cache=tmp_path)
