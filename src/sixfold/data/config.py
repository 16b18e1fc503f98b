"""Settings of the images and of their preparation."""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.core.config import IMAGE_COLUMN, LABEL_COLUMN, ON_BAD
from sixfold.core.settings import Settings, option
from sixfold.distributed.config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Which images, and how they reach the network."""

    data: str = option(
        "digits",
        "data set: digits, mnist:DIR, cifar10:PATH, cells:PATH, "
        "folder:PATH, parquet:PATH, shards:DIR, synthetic:NxCxHxW",
    )
    resize: int | None = option(None, "resize every image to this many pixels a side")
    validation: float = option(
        0.0, "part of the training images set aside, by class, to select on (0 to 0.5)"
    )
    test_split: float | None = option(
        None, "part of the images set aside, by class, to test on, if the set has none (to 0.5)"
    )
    max_images: int | None = option(
        None, "train on so many images only, stratified by class (default: all)"
    )
    augment: str = option(
        "none", "augmentation of training images: none, or a list such as crop:PAD,flip"
    )
    image_column: str | None = option(None, IMAGE_COLUMN)
    label_column: str | None = option(None, LABEL_COLUMN)
    on_error: str = option("fail", ON_BAD, choices=("fail", "skip"))

    def quick_problems(self) -> list[str]:
        """What is wrong at a glance, without reading any image; one line each."""
        from sixfold.data import problems

        return problems(self)


@dataclass(frozen=True, kw_only=True)
class PreparationConfig(Settings):
    """What is prepared, and where to."""

    source: str = option("", "data specification, such as folder:PATH or cifar10:PATH")
    destination: str = option("", "folder for the tensor shards")
    resize: int | None = option(None, "resize every image to this many pixels a side")
    image_column: str | None = option(None, IMAGE_COLUMN)
    label_column: str | None = option(None, LABEL_COLUMN)
    on_error: str = option("fail", ON_BAD, choices=("fail", "skip"))


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Settings):
    """Everything that `sixfold prepare` takes."""

    preparation: PreparationConfig = PreparationConfig()
    engine: EngineConfig = EngineConfig()
