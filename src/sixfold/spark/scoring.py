"""Scoring rows of a DataFrame with a trained network, in the executors' Python workers.

A worker process builds the network once and keeps it for its next tasks. Rows are scored in groups
whose pixels fit in a cache, on one thread a task.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.environment import variables_set
from sixfold.core.run_directory import OBJECTS
from sixfold.data.augmentation.views import NONE
from sixfold.data.formats.columns import EXPECTED, image_form, is_text
from sixfold.data.formats.tensors import ImageColumn
from sixfold.data.images import BadImageError, Pixels, quiet_decoder
from sixfold.data.shard_building import COLOR, GRAY
from sixfold.data.targets import BINARY, CLASSES, MULTI_LABEL, REGRESSION
from sixfold.distributed.engines.spark_package import importable
from sixfold.spark.writing import Columns, picture_of

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 2**24
"""Of float pixels that are scored at a time."""

MOST_KEPT = 2
"""Networks that a worker process keeps."""


@dataclass(frozen=True)
class Weights:
    """A trained network as the bytes of its file, or where the file is."""

    data: bytes | None
    path: str
    sha256: str
    trusted: str  # the network whose code may be run
    packed: bytes | None = None  # the file of the user's own object that it is
    archives: tuple[str, ...] = ()  # names of the zip files with the user's modules
    variables: tuple[tuple[str, str | None], ...] = ()  # of the environment, that those read
    sparse: tuple[tuple[str, str], ...] | None = None  # form of each layer, of a pruned network
    tta: str = NONE  # views of each image over which outputs are averaged

    def write(self, folder: Path) -> tuple[Path, str]:
        """Put its files into a folder, as in a run directory; where, and the network's name."""
        assert self.data is not None, "its file is not read where it is"
        file = folder / Path(self.path).name
        file.write_bytes(self.data)
        if self.packed is None:
            return file, self.trusted
        path, _, title = self.trusted.rpartition(":")
        own = folder / OBJECTS / Path(path).name
        own.parent.mkdir(exist_ok=True)
        own.write_bytes(self.packed)
        return file, f"{own}:{title}"

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and other._key() == self._key()

    def _key(self) -> tuple[object, ...]:
        return self.sha256, self.sparse, self.tta, self.variables


@lru_cache(maxsize=MOST_KEPT)
def classifier(weights: Weights) -> Any:
    """The network of a file, built once in a process."""
    from sixfold.compression.loading import load_network
    from sixfold.prediction.sparse.choose import sparse_network
    from sixfold.training.classifier import Classifier
    from sixfold.training.layers.rewrites import (
        folded_batch_norm,
        fused_max_pool,
        relu_behind_max_pool,
    )

    with contextlib.ExitStack() as stack:
        if weights.archives:
            from pyspark import SparkFiles

            stack.enter_context(importable(map(SparkFiles.get, weights.archives)))
        file, trusted = Path(weights.path), weights.trusted
        if weights.data is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sixfold-model-"))
            file, trusted = weights.write(Path(folder))
        elif hashlib.sha256(file.read_bytes()).hexdigest() != weights.sha256:
            raise ValueError(f"{file} has changed since the model was made")
        network, card = load_network(file, trusted=trusted)
        if weights.sparse is not None:
            sparse_network(network, card.shape, dict(weights.sparse))
    faster = fused_max_pool(relu_behind_max_pool(folded_batch_norm(network)))
    return Classifier(faster, card, weights.tta).eval()


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores batches of rows; what Spark calls as an Arrow UDF, or a pandas UDF, of iterators."""

    weights: Weights
    pixel_range: str  # what floating-point pixels are
    keep: bool  # whether a bad image gives nulls rather than an error
    label_values: tuple[float, ...]  # the prediction of each class
    targets: str = CLASSES  # kind of what is predicted

    def __call__(self, batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        """Score batches, one after the other.

        Yields:
            Structs of `prediction`, `probability`, `rawPrediction` and `error`.
        """
        import torch

        from sixfold.distributed.process_group.ambient import one_thread

        with one_thread(), torch.no_grad(), quiet_decoder():
            with variables_set(self.weights.variables):
                network = classifier(self.weights)
            for batch in batches:
                with variables_set(self.weights.variables):
                    scores = self.score(network, batch)
                yield scores

    def frames(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same for a pandas UDF of iterators: series, or data frames where cells are structs.

        Yields:
            Data frames of `prediction`, `probability`, `rawPrediction` and `error`.
        """
        import pyarrow as pa

        for scores in self(map(_cells, batches)):
            yield pa.RecordBatch.from_struct_array(scores).to_pandas()

    def score(self, network: Any, cells: pa.Array) -> pa.Array:
        """Score rows.

        Raises:
            ValueError: if an image cannot be used and such rows are not kept.
        """
        import pyarrow as pa

        columns = self._columns(cells.type)
        images: list[Pixels] = []
        errors: list[str | None] = [None] * len(cells)
        for place, cell in enumerate(cells):
            try:
                images.append(_pixels(columns, cell, network.shape))
            except BadImageError as error:
                if not self.keep:
                    raise ValueError(
                        f"sixfold: row {place} of a batch has an image that cannot be used: "
                        f"{error.reason}; handleInvalid 'skip' leaves such rows out, 'keep' gives "
                        "them null predictions"
                    ) from None
                errors[place] = error.reason
        raw, scores = self._scores(network, images)
        good = np.array([error is None for error in errors], bool)
        prediction = np.zeros(len(cells))
        no_prediction, no_scores = ~good, ~good
        if self.targets == REGRESSION:
            prediction[good] = raw[:, 0]
            no_scores = np.ones(len(cells), bool)
        elif self.targets == MULTI_LABEL:
            no_prediction = np.ones(len(cells), bool)
        else:
            prediction[good] = np.array(self.label_values)[scores.argmax(1)]
        found = {
            "prediction": pa.array(prediction, mask=no_prediction),
            "probability": _lists(scores, no_scores),
            "rawPrediction": _lists(raw, ~good),
            "error": pa.array(errors, pa.string()),
        }
        return pa.StructArray.from_arrays(list(found.values()), list(found))

    def _columns(self, kind: pa.DataType) -> Columns:
        """How images lie in what Spark has brought."""
        is_path = is_text(kind)
        form = "pictures" if is_path else image_form(kind)
        if form is None:
            raise ValueError(f"sixfold: a column of {kind}: expected {EXPECTED['image']}")
        form = "pictures" if form == "null" else form
        return Columns(image=ImageColumn("image", form, self.pixel_range), is_path=is_path)

    def _scores(
        self, network: Any, images: list[Pixels]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Raw outputs and probabilities of images, a row each."""
        import torch

        from sixfold.training.evaluate import probabilities

        outputs = [torch.empty(0, len(network.classes), dtype=torch.float64)]
        step = 1 if not images else max(GROUP_BYTES // (images[0].size * 4), 1)
        for start in range(0, len(images), step):
            batch = torch.from_numpy(np.stack(images[start : start + step]))
            outputs.append(network(batch.to(memory_format=torch.channels_last)).double())
        raw = torch.cat(outputs[1:] or outputs)
        scores = probabilities(self.targets, raw).numpy()
        if self.targets == BINARY:  # as Spark's models of two classes have it
            raw = torch.cat([-raw, raw], 1)
        return raw.numpy(), scores


def _cells(given: Any) -> pa.Array:
    """Cells of a pandas UDF: a series, or a data frame for structs."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(given, pd.Series):
        return pa.array(given.to_numpy(), from_pandas=False)  # a NaN in a list is no null
    # Whole numbers beside a null have become floating-point ones.
    whole = given.convert_dtypes(
        convert_string=False, convert_boolean=False, convert_floating=False
    )
    return pa.RecordBatch.from_pandas(whole, preserve_index=False).to_struct_array()


def _pixels(columns: Columns, cell: Any, shape: tuple[int, int, int]) -> Pixels:
    """An image as a network of that shape takes it."""
    side = shape[1] if shape[1] == shape[2] else None
    pixels = picture_of(columns, {columns.image.name: cell}).pixels(side)
    if len(pixels) == GRAY and shape[0] == COLOR:
        pixels = np.repeat(pixels, COLOR, axis=0)
    if pixels.shape != shape:
        made = "x".join(map(str, pixels.shape))
        raise BadImageError(f"{made}, but the network takes {'x'.join(map(str, shape))}")
    return pixels


def _lists(values: NDArray[np.float64], is_null: NDArray[np.bool_]) -> pa.Array:
    """Rows of a matrix as lists; they are those that are not null, in their order."""
    import pyarrow as pa

    kept = int((~is_null).sum())
    ends = np.cumsum(~is_null) * values.shape[1]
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    flat = pa.array(np.ascontiguousarray(values[:kept]).reshape(-1))
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(is_null))
