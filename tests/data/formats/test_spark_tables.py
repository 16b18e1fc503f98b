"""What Spark writes, as tables that pyarrow makes in the same form; `test_by_spark` has Spark's."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from sixfold.core.errors import UserError
from sixfold.data import DataSet, open_data, resolve
from sixfold.data.config import DataConfig

COUNT, SIDE = 20, 8
LABELS = [("cat", "dog")[i % 2] for i in range(COUNT)]
COLOURS = np.random.default_rng(0).integers(0, 256, (COUNT, 3, SIDE, SIDE), np.uint8)
GREYS = np.ascontiguousarray(COLOURS[:, :1])


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    last = image.transpose(1, 2, 0)
    Image.fromarray(last[..., 0] if len(image) == 1 else last).save(buffer, "PNG")
    return buffer.getvalue()


def spark_image(image: NDArray[np.uint8]) -> dict[str, Any]:
    """As Spark has it: rows of blue, green, red (and alpha), with OpenCV's type."""
    channels, height, width = image.shape
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    return {
        "origin": "file:/x.png",
        "height": height,
        "width": width,
        "nChannels": channels,
        "mode": (channels - 1) * 8,
        "data": image[order].transpose(1, 2, 0).tobytes(),
    }


def vector(values: NDArray[Any]) -> dict[str, Any]:
    """As Spark's VectorAssembler has it: sparse where that is shorter."""
    places = np.flatnonzero(values)
    if 1.5 * len(places) + 1 < len(values):
        held = values[places].tolist()
        return {"type": 0, "size": len(values), "indices": places.tolist(), "values": held}
    return {"type": 1, "size": None, "indices": None, "values": values.tolist()}


VECTOR = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)
DARK = GREYS.copy()
DARK[1::2] //= 255  # almost all of it is zero: sparse

Columns = dict[str, Any]


def vectors(images: NDArray[np.uint8], top: float) -> Columns:
    return {"features": pa.array([vector(image.ravel() / top) for image in images], VECTOR)}


def lists(images: NDArray[np.uint8], kind: Any, top: int = 1) -> Columns:
    return {"features": pa.array((images.reshape(COUNT, -1) / top).tolist(), kind)}


FORMS: dict[str, tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Columns]]] = {
    "image": (COLOURS, lambda x: {"image": [spark_image(i) for i in x]}),
    "grey image": (GREYS, lambda x: {"image": [spark_image(i) for i in x]}),
    "flattened image": (
        COLOURS,
        lambda x: {name: [spark_image(i)[name] for i in x] for name in spark_image(x[0])},
    ),
    "binaryFile": (
        COLOURS,
        lambda x: {
            "path": ["file:/x.png"] * len(x),
            "modificationTime": pa.array([0] * len(x), pa.timestamp("us")),
            "length": [len(png(i)) for i in x],
            "content": [png(i) for i in x],
        },
    ),
    "binary view": (COLOURS, lambda x: {"image": pa.array([png(i) for i in x], pa.binary_view())}),
    "dictionary": (COLOURS, lambda x: {"image": pa.array([png(i) for i in x]).dictionary_encode()}),
    "vectors": (DARK, lambda x: vectors(x, 1)),
    "vectors to 1": (DARK, lambda x: vectors(x, 255)),
    "arrays": (GREYS, lambda x: lists(x, pa.list_(pa.float32()), 255)),
    "list views": (GREYS, lambda x: lists(x, pa.list_view(pa.int32()))),
}


def write(path: Path, columns: Columns, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def opened(path: Path, cache: Path, **settings: Any) -> DataSet:
    labelled = settings.pop("labelled", True)
    config = DataConfig(data=f"parquet:{path}", **settings)
    return open_data(resolve(config, cache=cache, labelled=labelled), as_listed=True)


def check(dataset: DataSet, images: NDArray[np.uint8]) -> None:
    """That every row has its own pixels and label."""
    assert len(dataset.train) + len(dataset.test) == len(images)
    for part in (dataset.train, dataset.test):
        everything = np.arange(len(part))
        rows = [int(name.rpartition("[")[2][:-1]) for name in part.names(everything)]
        assert (part.images(everything) == images[rows]).all()
        assert [dataset.classes[label] for label in part.labels] == [LABELS[row] for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path: Path, form: str) -> None:
    images, make = FORMS[form]
    path = write(tmp_path / "a.parquet", make(images) | {"label": LABELS})
    check(opened(path, tmp_path), images)


def test_images_of_all_channels_are_as_pillow_shows_them(tmp_path: Path) -> None:
    clear = np.concatenate([COLOURS, COLOURS[::-1, :1]], axis=1)
    mixed = [(GREYS, COLOURS, clear)[i % 3][i] for i in range(COUNT)]
    as_spark = write(
        tmp_path / "s.parquet", {"image": list(map(spark_image, mixed)), "label": LABELS}
    )
    as_png = write(tmp_path / "p.parquet", {"image": list(map(png, mixed)), "label": LABELS})
    first, second = opened(as_spark, tmp_path, resize=5), opened(as_png, tmp_path, resize=5)
    assert first.shape == second.shape == (3, 5, 5)
    everything = np.arange(len(first.train))
    assert (first.train.images(everything) == second.train.images(everything)).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"height": -1, "width": -1, "nChannels": -1, "mode": -1, "data": b""},
         r"not an image \(Spark could not decode file:/x.png\)"),
        ({"mode": 21}, "3 channels of OpenCV's type 21: expected 1, 3 or 4 of 8 bits"),
        ({"nChannels": 2, "mode": 8}, "2 channels"),
        ({"data": b"short"}, "5 bytes: expected 8 x 8 x 3"),
        ({"height": None}, "not an image"),
    ],
)  # fmt: skip
def test_images_that_spark_could_not_decode_are_bad(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    cells = [spark_image(image) for image in COLOURS]
    cells[7] |= changes
    path = write(tmp_path / "a.parquet", {"image": cells, "label": LABELS})
    with pytest.raises(UserError, match=rf"a\.parquet\[7\]: {reason}"):
        opened(path, tmp_path)
    assert opened(path, tmp_path, on_error="skip").skipped == 1


def test_a_sparse_vector_with_places_outside_of_it_is_bad(tmp_path: Path) -> None:
    cells = [vector(image.ravel() * 1.0) for image in DARK]
    cells[2] = {"type": 0, "size": 64, "indices": [64], "values": [1.0]}
    cells[3] = {"type": 0, "size": 2**31 - 1, "indices": [3], "values": [1.0]}
    path = write(tmp_path / "a.parquet", {"features": pa.array(cells, VECTOR), "label": LABELS})
    with pytest.raises(UserError, match="places outside"):
        opened(path, tmp_path)
    assert opened(path, tmp_path, on_error="skip").skipped == 2


def indexer(column: str, names: list[str]) -> dict[str, str]:
    field = {"name": column, "metadata": {"ml_attr": {"vals": names, "type": "nominal"}}}
    return {"org.apache.spark.sql.parquet.row.metadata": json.dumps({"fields": [field]})}


def test_doubles_of_string_indexer_are_labels_with_its_names(tmp_path: Path) -> None:
    numbers = [float(name == "cat") for name in LABELS]
    columns = {"image": [png(i) for i in COLOURS], "target": numbers}
    check(
        opened(
            write(tmp_path / "a.parquet", columns, indexer("target", ["dog", "cat", "__unknown"])),
            tmp_path,
        ),
        COLOURS,
    )
    assert opened(write(tmp_path / "b.parquet", columns), tmp_path).classes == ("0", "1")
    write(tmp_path / "set/a.parquet", columns, indexer("target", ["dog", "cat"]))
    write(tmp_path / "set/b.parquet", columns, indexer("target", ["cat", "dog"]))
    with pytest.raises(
        UserError, match=r"0 means 'dog' in .*a\.parquet, but 'cat' in .*b\.parquet"
    ):
        opened(tmp_path / "set", tmp_path)
    columns["target"] = [0.5, *numbers[1:]]
    with pytest.raises(UserError, match=r"'target' holds 0\.5, which is no class"):
        opened(write(tmp_path / "c.parquet", columns), tmp_path)
