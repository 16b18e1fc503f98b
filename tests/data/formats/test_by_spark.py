"""Tables that Spark itself writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.formats.test_spark_tables import COLOURS, COUNT, LABELS, SIDE, opened
from tests.spark_masters import EngineProcess

from sixfold.data import DataSet

pytestmark = [pytest.mark.spark]


def writer() -> Callable[..., None]:
    """A function that travels to the process that has the session."""

    def write_tables(_engine: Any, pictures: str, out: str) -> None:
        from pyspark.ml.feature import StringIndexer, VectorAssembler
        from pyspark.sql import SparkSession, functions

        session = SparkSession.builder.getOrCreate()
        read = session.read.option("recursiveFileLookup", "true")
        images = read.format("image").load(pictures)
        of_path = functions.element_at(functions.split("image.origin", "/"), -2)
        images = images.withColumn("label", of_path)
        images.write.parquet(f"{out}/image")
        images.select("image.*", "label").write.parquet(f"{out}/flattened")
        files = read.format("binaryFile").load(pictures)
        files = files.withColumn("label", functions.element_at(functions.split("path", "/"), -2))
        files.write.parquet(f"{out}/binaryFile")
        files.write.partitionBy("label").parquet(f"{out}/partitionBy")
        indexer = StringIndexer(inputCol="label", outputCol="target", handleInvalid="keep")
        indexed = indexer.fit(files).transform(files)
        indexed.drop("label").write.parquet(f"{out}/indexed")
        names = [f"p{place}" for place in range(4)]
        rows = [[float(row == place) * 255 for place in range(4)] + [row % 2] for row in range(4)]
        rows = [*rows, [255.0] * 4 + [0], [0.0] * 4 + [1]]
        frame = session.createDataFrame(rows, [*names, "label"])
        assembled = VectorAssembler(inputCols=names, outputCol="features").transform(frame)
        assembled.select("features", "label").coalesce(1).write.parquet(f"{out}/vectors")

    return write_tables


def pixels_of(dataset: DataSet) -> dict[bytes, str]:
    """Class of every image, by its pixels."""
    return {
        image.tobytes(): dataset.classes[label]
        for part in (dataset.train, dataset.test)
        for image, label in zip(part.images(np.arange(len(part))), part.labels, strict=True)
    }


@pytest.mark.full
def test_what_spark_writes_is_read(tmp_path: Path, spark_local: EngineProcess) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "tables"
    for number, (image, label) in enumerate(zip(COLOURS, LABELS, strict=True)):
        (pictures / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(pictures / label / f"{number}.png")
    (pictures / "cat" / "bad.png").write_bytes(b"no picture")
    spark_local.call(writer(), str(pictures), str(out))
    wanted = {image.tobytes(): label for image, label in zip(COLOURS, LABELS, strict=True)}
    for form in ("image", "flattened", "binaryFile", "partitionBy", "indexed"):
        dataset = opened(out / form, tmp_path, on_error="skip")
        assert dataset.skipped == 1, form
        assert dataset.shape == (3, SIDE, SIDE)
        assert len(dataset.train) + len(dataset.test) == COUNT
        assert pixels_of(dataset) == wanted, form
    vectors = pixels_of(opened(out / "vectors", tmp_path))
    assert len(vectors) == 6
    assert vectors[bytes(4)] == "1"
    assert vectors[b"\0\xff\0\0"] == "1"
    assert vectors[b"\xff\0\0\0"] == vectors[b"\xff" * 4] == "0"
