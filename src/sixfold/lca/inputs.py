"""What is coded: images of a data set or frames of movies, by index, and their names."""

from __future__ import annotations

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
class Source:
    """Where images come from; plain data that travels to the ranks.

    Attributes:
        data: resolved settings of a data set; or movies:PATH with an absolute path.
        part: `train` or `test`.
        limit: number of images to use at most.
        listing: file with names of images, one a line; None for all in their own order.
    """

    data: DataConfig
    part: str
    limit: int | None = None
    listing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images that can be read by index.

    Attributes:
        count: how many there are.
        shape: (C, H, W).
        mean: per channel over all of them, in [0, 1] (of a data set: over its training part).
        images: gives pixels (n, C, H, W), uint8, by indices.
        names: gives names by indices.
        movies: first frame and number of frames of each movie.
        bad: files that were left out, each with the reason.
    """

    count: int
    shape: tuple[int, int, int]
    mean: NDArray[np.float64]
    images: Callable[[Indices], NDArray[np.uint8]]
    names: Callable[[Indices], list[str]]
    movies: tuple[tuple[int, int], ...] = ()
    bad: tuple[str, ...] = ()


def open_pictures(source: Source) -> Pictures:
    """Open what a source says.

    Raises:
        UserError: if there is nothing, or names in the listing are not there.
    """
    found = _movies(source.data) if source.data.data.startswith(PREFIX) else _data_set(source)
    if source.listing is not None:
        found = _listed(found, Path(source.listing))
    if source.limit is not None and source.limit < found.count and not found.movies:
        found = Pictures(**{**vars(found), "count": source.limit})
    if not found.count:
        raise UserError(f"--data {source.data.data}: the {source.part} part holds no images")
    return found


def _movies(config: DataConfig) -> Pictures:
    read = read_movies(Path(config.data.removeprefix(PREFIX)), config.resize)
    total, _ = image_sums(read.frames)
    pixels = len(read.frames) * read.frames.shape[2] * read.frames.shape[3]
    return Pictures(
        count=len(read.frames),
        shape=(read.frames.shape[1], read.frames.shape[2], read.frames.shape[3]),
        mean=total.sum(0) / (255 * pixels),
        images=lambda indices: read.frames[indices],
        names=lambda indices: [read.names[index] for index in indices],
        movies=read.movies,
    )


def _data_set(source: Source) -> Pictures:
    opened = datasets.open_data(source.data)
    part = opened.test if source.part == "test" else opened.train
    return Pictures(
        count=len(part),
        shape=opened.shape,
        mean=opened.mean,
        images=part.images,
        names=part.names,
        bad=opened.bad,
    )


def _listed(pictures: Pictures, file: Path) -> Pictures:
    """The pictures that a file names, in its order."""
    if pictures.movies:
        raise UserError("--list: movies are taken in the order of their names")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--list {file}: cannot be read ({error})") from error
    wanted = [line for line in lines if line]
    known = {name: index for index, name in enumerate(pictures.names(np.arange(pictures.count)))}
    missing = [name for name in wanted if name not in known]
    if missing:
        example = next(iter(known))
        raise UserError(
            f"--list {file}: {len(missing)} of {len(wanted)} names are not in the data, such as "
            f"{missing[0]!r}; names look like {example!r}"
        )
    chosen = np.array([known[name] for name in wanted], np.int64)
    return Pictures(
        **{
            **vars(pictures),
            "count": len(chosen),
            "images": lambda indices: pictures.images(chosen[indices]),
            "names": lambda indices: pictures.names(chosen[indices]),
        }
    )
