"""Settings of the images and of their preparation."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.byte_sizes import parse_size
from sixfold.core.config import (
    IMAGE_COLUMN,
    LABEL_COLUMN,
    ON_ERROR,
    PIXEL_RANGE,
    PIXEL_RANGES,
    TARGET,
    WEIGHT_COLUMN,
)
from sixfold.core.errors import UserError
from sixfold.core.object_store import is_url
from sixfold.core.settings import Settings, option
from sixfold.data.targets import AUTO, KINDS
from sixfold.distributed.config import EngineConfig

HANDED_OVER = "(handed over)"
"""In place of a specification, until data that Python code has in hand are written."""

MOST_SIDE = 4096
MOST_VALIDATION = 0.5


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Which images, and how they reach the network."""

    data: str = option(
        "digits",
        "data set: digits, mnist:DIR, cifar10:PATH, cells:PATH, "
        "folder:PATH, parquet:PATH, shards:DIR, hf:NAME, synthetic:NxCxHxW",
    )
    resize: int | None = option(
        None, "resize every image to this many pixels a side", ge=1, le=MOST_SIDE
    )
    validation: float = option(
        0.0,
        "part of the training images set aside, by class, to select on (0 to 0.5)",
        ge=0,
        le=MOST_VALIDATION,
    )
    test_split: float | None = option(
        None,
        "part of the images set aside, by class, to test on, if the set has none (to 0.5); 0: "
        "train on all of them and report no test",
        ge=0,
        le=MOST_VALIDATION,
    )
    max_images: int | None = option(
        None, "train on so many images only, stratified by class (default: all)", ge=1
    )
    augment: str = option(
        "none",
        "augmentation of training images: none, or a list of crop, flip, flip-alternate, "
        "flip-rows, resized-crop, rotate, color-jitter, randaugment, erase, cutout, mixup, cutmix, "
        "with numbers behind them: crop:4,flip,randaugment:2:9,mixup:0.2",
        form="LIST",
    )
    reread: str | None = option(
        None,
        "read training images anew in each epoch from this packed data set, whose first reading "
        "--data names (`sixfold.train` sets it for data sets with random transforms)",
    )
    cache_size: str | None = option(
        None,
        "leave the tensor shards of shards:URL in the store, and keep at most so much of them on "
        "each host at a time (default: each host copies the whole set)",
        form="SIZE",
    )
    shuffle_files: int | None = option(
        None,
        "visit the images of so many files of tensor shards at a time, drawn anew in each epoch "
        "(default: of all files; sync and model_parallel only)",
        ge=1,
    )
    image_column: str | None = option(None, IMAGE_COLUMN)
    pixel_range: str | None = option(None, PIXEL_RANGE, choices=PIXEL_RANGES)
    label_column: str | None = option(None, LABEL_COLUMN)
    weight_column: str | None = option(None, WEIGHT_COLUMN)
    target: str = option(AUTO, TARGET, choices=(AUTO, *KINDS))
    on_error: str = option("fail", ON_ERROR, choices=("fail", "skip"))

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Why data that only the run names are not opened: they may be a stranger's."""
        from sixfold.data.origin import origin_problems

        found = origin_problems(self.data, file) if "data" in taken else []
        if "reread" not in taken or self.reread is None:
            return found
        from sixfold.models.origin import check_module

        try:
            check_module(self.reread, file, "data set")
        except UserError as error:
            found += error.problems
        return found

    @classmethod
    def expand(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Augmentations may come as a list of texts: ["crop:4", "flip"]."""
        listed = given.get("augment")
        if isinstance(listed, list | tuple) and all(isinstance(word, str) for word in listed):
            return {**given, "augment": ",".join(listed) or "none"}
        return given

    def cross_problems(self) -> list[str]:
        """What is wrong with the source, without reading any image."""
        from sixfold.data.registry import source_problems

        return [*source_problems(self), *self._cache_problems()]

    @property
    def cache_bytes(self) -> int | None:
        """What `--cache-size` says."""
        return None if self.cache_size is None else parse_size(self.cache_size)

    def _cache_problems(self) -> list[str]:
        if self.cache_size is None:
            return []
        try:
            parse_size(self.cache_size)
        except ValueError:
            return [f"--cache-size {self.cache_size}: expected a size such as 500M or 20G"]
        kind, _, where = self.data.partition(":")
        if kind != "shards" or not is_url(where):
            return [
                f"--cache-size {self.cache_size}: only for tensor shards in a store (shards:URL), "
                f"and the data is {self.data}: `sixfold prepare` makes them"
            ]
        return []


@dataclass(frozen=True, kw_only=True)
class PreparationConfig(Settings):
    """What is prepared, and where to."""

    source: str = option("", "data specification, such as folder:PATH or cifar10:PATH")
    destination: str = option("", "folder for the tensor shards")
    resize: int | None = option(
        None, "resize every image to this many pixels a side", ge=1, le=MOST_SIDE
    )
    image_column: str | None = option(None, IMAGE_COLUMN)
    pixel_range: str | None = option(None, PIXEL_RANGE, choices=PIXEL_RANGES)
    label_column: str | None = option(None, LABEL_COLUMN)
    weight_column: str | None = option(None, WEIGHT_COLUMN)
    target: str = option(AUTO, TARGET, choices=(AUTO, *KINDS))
    on_error: str = option("fail", ON_ERROR, choices=("fail", "skip"))


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Settings):
    """Everything that `sixfold prepare` takes."""

    preparation: PreparationConfig = PreparationConfig()
    engine: EngineConfig = EngineConfig()

    def cross_problems(self) -> list[str]:
        """What is missing."""
        found = self.engine.range_problems("prepare")
        if not (self.preparation.source and self.preparation.destination):
            found.append("give source and destination: sixfold prepare SRC DST")
        return found
