"""Small DataFrames of images, made within a Spark session."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS, CLASSES = 60, 3


def pixels(rows: int = ROWS, side: int = 8, channels: int = 3) -> NDArray[np.uint8]:
    """Images whose brightest third tells the class, (N, C, H, W)."""
    noise = np.random.default_rng(0).integers(0, 60, (rows, channels, side, side), dtype=np.uint8)
    for row in range(rows):
        noise[row, :, (row % CLASSES) * side // CLASSES :][:, : side // CLASSES] += 150
    return noise


def png(image: NDArray[np.uint8]) -> bytes:
    """One image (C, H, W) as a PNG file."""
    from PIL import Image

    shown = image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "PNG")
    return file.getvalue()


def encoded(session: Any, rows: int = ROWS, channels: int = 3) -> Any:
    """A table of PNG files: image, label, id."""
    images = pixels(rows, channels=channels)
    table = [(bytearray(png(image)), row % CLASSES, row) for row, image in enumerate(images)]
    return session.createDataFrame(table, "image binary, label int, id int")


def classifier(**params: Any) -> Any:
    """An estimator whose fit takes a moment."""
    from sixfold.spark import SixfoldClassifier

    small = {"model": "slide", "batchSize": 20, "steps": 6, "lr": 0.005, "numWorkers": 2}
    return SixfoldClassifier(**small | {"evaluateEvery": 0.0} | params)


def session_of(engine: Any) -> Any:
    """The session in whose process a test's function runs."""
    if hasattr(engine, "connected"):
        return engine.connected
    from pyspark.sql import SparkSession

    return SparkSession(engine.session.context)
