"""Classes and scores of images, from a trained network in this process."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sixfold.core.checks import unknown
from sixfold.core.errors import RunError, UserError, raise_problems
from sixfold.data.arrays import PixelReader, as_array, batch_channels_first, range_of
from sixfold.data.config import DataConfig
from sixfold.data.given_sources import parts_of
from sixfold.data.images import BadImageError, Pixels, resize_array
from sixfold.data.shard_building import COLOR, GRAY
from sixfold.data.targets import CLASSES, MULTI_LABEL, REGRESSION
from sixfold.prediction.columns import explain_not_finite
from sixfold.training.classifier import Classifier
from sixfold.training.evaluate import probabilities


@dataclass(frozen=True)
class Predictions:
    """What a network says of images."""

    classes: tuple[str, ...]  # names of the classes, labels or numbers, in the order of the columns
    probabilities: NDArray[np.float32]  # (N, K), float32; of a regression the numbers
    kind: str = CLASSES  # of the targets: classes, binary, multi_label or regression

    @property
    def values(self) -> NDArray[np.float32]:
        """The numbers of a regression, (N, K)."""
        if self.kind != REGRESSION:
            raise AttributeError(f"{self.kind} targets have probabilities and labels, not values")
        return self.probabilities

    @property
    def indices(self) -> NDArray[np.int64]:
        """Number of the class of each image, (N,)."""
        if self.kind in (MULTI_LABEL, REGRESSION):
            raise AttributeError(f"{self.kind} targets have no single class an image")
        found: NDArray[np.int64] = self.probabilities.argmax(1).astype(np.int64)
        return found

    @property
    def labels(self) -> list[str] | list[list[str]]:
        """Name of the class of each image; of several labels the names of those it has."""
        if self.kind == MULTI_LABEL:
            rows = self.probabilities > 0.5
            return [[n for n, has in zip(self.classes, row, strict=True) if has] for row in rows]
        return [self.classes[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:10]) + (", ..." if len(self.classes) > 10 else "")
        return f"<Predictions: {len(self)} images, {self.kind}: {names}>"

    def to_pandas(self) -> Any:
        """A row for each image: class, confidence, and the probability of each class.

        Of several labels the list of them instead of a class; of a regression the numbers alone.
        """
        import pandas as pd

        table = pd.DataFrame(self.probabilities, columns=list(self.classes))
        if self.kind == REGRESSION:
            return table
        if self.kind == MULTI_LABEL:
            table.insert(0, "prediction", self.labels)
            return table
        table.insert(0, "confidence", self.probabilities.max(1) if len(self) else [])
        table.insert(0, "prediction", self.labels)
        return table


def predict(model: Classifier, data: Any, *, batch_size: int = 256, **options: Any) -> Predictions:
    """Probabilities of every image, in the order of the data.

    A `UserError` if the data are nothing that can be read, or of another shape than the network's.
    """
    config = _reading(model, batch_size, options)
    found = []
    for batch in _batches(data, config, model.shape, batch_size):
        with torch.no_grad():
            scores = model(torch.from_numpy(batch))
            found.append(probabilities(model.kind, scores).to(torch.float32).numpy())
    empty = np.empty((0, len(model.classes)), np.float32)
    told = np.concatenate([empty, *found])
    if len(odd := np.flatnonzero(~np.isfinite(told).all(1))):
        raise RunError(explain_not_finite(len(odd), len(told), f"image {odd[0]}"))
    return Predictions(model.classes, told, model.kind)


_READING = ("resize", "image_column", "label_column", "pixel_range", "on_error")
"""Settings of data that say how images are read."""


def _reading(model: Classifier, batch_size: Any, options: Mapping[str, Any]) -> DataConfig:
    """How images are read; a `UserError` with everything that is wrong."""
    problems = [unknown("option", name, _READING) for name in options if name not in _READING]
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        problems.append(f"batch_size={batch_size!r}: expected a whole number, at least 1")
    known = {name: value for name, value in options.items() if name in _READING}
    config = DataConfig()
    try:
        config = DataConfig(**{"pixel_range": model.pixel_range or None, **known})
        rest = config.cross_problems()  # of the specification, which is not asked here
        problems += [line for line in config.problems() if line not in rest]
    except UserError as error:
        problems += error.problems
    raise_problems(problems)
    return config


def _batches(
    data: Any, config: DataConfig, shape: tuple[int, int, int], size: int
) -> Iterator[NDArray[Any]]:
    batch: list[Pixels] = []
    for image in _images(data, config):
        batch.append(_fitted(image, shape))
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _images(data: Any, config: DataConfig) -> Iterator[Pixels]:
    if hasattr(data, "shape") and hasattr(data, "dtype"):  # images alone
        array, is_tensor = as_array(data)
        array = batch_channels_first(array, is_tensor=is_tensor)
        reader = PixelReader(config.pixel_range or range_of(array))
        for image in array:
            yield reader.read(image)
        return
    with tempfile.TemporaryDirectory(prefix="sixfold-") as scratch:
        for part, source in parts_of(data, "data", config, Path(scratch)).items():
            if part == "train":
                for read, _, name in source.records():
                    try:
                        yield read()
                    except BadImageError as error:
                        raise UserError(f"data: {error.name or name}: {error.reason}") from error


def _fitted(image: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """An image in the network's shape: grey becomes colour, and any size that of a square one."""
    given = image.shape
    if image.shape[0] == GRAY and shape[0] == COLOR:
        image = np.repeat(image, COLOR, axis=0)
    if image.shape != shape and image.shape[0] == shape[0] and shape[1] == shape[2]:
        image = resize_array(image, shape[1])
    if image.shape != shape:
        raise UserError(
            f"data: an image of shape {'x'.join(map(str, given))}: the network was trained on "
            f"{'x'.join(map(str, shape))}"
        )
    return image
