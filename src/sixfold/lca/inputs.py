"""What is coded: images of a data set or frames of movies, by index, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.data.config import DataConfig
from sixfold.data.dataset import image_sums
from sixfold.lca.movies import PREFIX, read_movies

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where images come from; plain data that travels to the ranks."""

    data: DataConfig  # resolved; or movies:PATH with an absolute path
    split: str  # `train` or `test`
    max_images: int | None = None
    listing: str | None = None  # file with names of images, one a line; None for all in their order


@dataclass(frozen=True, kw_only=True)
class OpenedImages:
    """Images that can be read by index."""

    count: int
    shape: tuple[int, int, int]  # (C, H, W)
    mean: NDArray[np.float64]  # (C,) over all, in [0, 1]; of a data set: over its training part
    pixels: Callable[[Indices], NDArray[np.uint8]]  # (n, C, H, W) by indices
    names: Callable[[Indices], list[str]]
    movies: tuple[tuple[int, int], ...] = ()  # first frame and number of frames of each
    bad: tuple[str, ...] = ()  # files that were left out, each with the reason


def open_images(source: ImageSource) -> OpenedImages:
    """Open what a source says.

    Raises:
        UserError: if there is nothing, or names in the listing are not there.
    """
    found = _movies(source.data) if source.data.data.startswith(PREFIX) else _data_set(source)
    if source.listing is not None:
        found = _listed(found, Path(source.listing))
    if source.max_images is not None and source.max_images < found.count and not found.movies:
        found = dataclasses.replace(found, count=source.max_images)
    if not found.count:
        raise UserError(f"--data {source.data.data}: the {source.split} part holds no images")
    return found


def _movies(config: DataConfig) -> OpenedImages:
    read = read_movies(Path(config.data.removeprefix(PREFIX)), config.resize)
    count, channels, height, width = read.frames.shape
    return OpenedImages(
        count=count,
        shape=(channels, height, width),
        mean=image_sums(read.frames)[0].sum(0) / (255 * count * height * width),
        pixels=lambda indices: read.frames[indices],
        names=lambda indices: [read.names[index] for index in indices],
        movies=read.movies,
    )


def _data_set(source: ImageSource) -> OpenedImages:
    opened = datasets.open_data(source.data)
    part = opened.test if source.split == "test" else opened.train
    return OpenedImages(
        count=len(part),
        shape=opened.shape,
        mean=opened.mean,
        pixels=part.images,
        names=part.names,
        bad=opened.bad,
    )


def _listed(images: OpenedImages, file: Path) -> OpenedImages:
    """The images that a file names, in its order."""
    if images.movies:
        raise UserError("--list: movies are taken in the order of their names")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--list {file}: cannot be read ({error})") from error
    wanted = [line for line in lines if line]
    known = {name: index for index, name in enumerate(images.names(np.arange(images.count)))}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise UserError(
            f"--list {file}: {len(missing)} of {len(wanted)} names are not in the data, such as "
            f"{missing[0]!r}; names look like {next(iter(known))!r}"
        )
    chosen = np.array([known[name] for name in wanted], np.int64)
    return dataclasses.replace(
        images,
        count=len(chosen),
        pixels=lambda indices: images.pixels(chosen[indices]),
        names=lambda indices: images.names(chosen[indices]),
    )
