"""What is coded: images of a data set or frames of movies, by index, and their names.

A folder given as ``movies:PATH`` holds one movie an entry, in the order of their names:

    a folder            its pictures, in the order of their names
    NAME.npy            an array (T, H, W), (T, H, W, C) or (T, C, H, W), uint8 or in [0, 1]
    NAME.gif and alike  an animated picture (GIF, PNG, WebP, TIFF)

All frames of all movies must be of one size, or be brought to one by `--resize`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from sixfold import data as datasets
from sixfold.core.errors import UserError, raise_problems
from sixfold.data.config import DataConfig
from sixfold.data.pixel_sums import image_sums

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
    pixels: Callable[[Indices], NDArray[Any]]  # (n, C, H, W) by indices
    names: Callable[[Indices], list[str]]
    movies: tuple[tuple[int, int], ...] = ()  # first frame and number of frames of each
    bad: tuple[str, ...] = ()  # files that were left out, each with the reason


def open_images(source: ImageSource) -> OpenedImages:
    """Open what a source says."""
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
    opened = datasets.open_data(source.data, as_listed=True)
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


PREFIX = "movies:"


@dataclass(frozen=True, kw_only=True)
class Movies:
    """All frames of all movies."""

    frames: NDArray[np.uint8]  # (T, C, H, W), uint8
    movies: tuple[tuple[int, int], ...]  # first frame and number of frames of each
    names: tuple[str, ...]  # of the frames


def read_movies(folder: Path, resize: int | None) -> Movies:
    """Read the movies of a folder; every entry that cannot be read is told."""
    if not folder.is_dir():
        raise UserError(f"--data movies:{folder}: is no folder; give one that holds movies")
    clips: list[tuple[str, NDArray[np.uint8]]] = []
    bad = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        try:
            clips.append((entry.name, _read(entry, resize)))
        except (OSError, ValueError, UnidentifiedImageError) as error:
            bad.append(f"--data movies:{folder}: {entry.name} cannot be read ({error})")
    if not clips and not bad:
        bad.append(f"--data movies:{folder}: holds no movies")
    shapes = {clip.shape[1:] for _, clip in clips}
    if len(shapes) > 1 and not bad:
        sizes = ", ".join(sorted("x".join(map(str, shape)) for shape in shapes))
        bad.append(f"--data movies:{folder}: frames differ in size ({sizes}); use --resize N")
    raise_problems(bad)
    starts = np.cumsum([0, *(len(clip) for _, clip in clips)])
    return Movies(
        frames=np.concatenate([clip for _, clip in clips]),
        movies=tuple(
            (int(start), len(clip)) for start, (_, clip) in zip(starts[:-1], clips, strict=True)
        ),
        names=tuple(f"{name}[{t}]" for name, clip in clips for t in range(len(clip))),
    )


def _read(entry: Path, resize: int | None) -> NDArray[np.uint8]:
    pictures: list[Image.Image]
    if entry.is_dir():
        pictures = [
            Image.open(file) for file in sorted(entry.iterdir()) if not file.name.startswith(".")
        ]
    elif entry.suffix == ".npy":
        pictures = _from_array(np.load(entry, allow_pickle=False))
    else:
        with Image.open(entry) as animation:
            pictures = [frame.copy() for frame in ImageSequence.Iterator(animation)]
    if not pictures:
        raise ValueError("it holds no frames")
    grey = all(picture.mode in ("1", "L", "LA", "I", "I;16") for picture in pictures)
    frames = []
    for picture in pictures:
        plain = picture.convert("L" if grey else "RGB")
        if resize is not None:
            plain = plain.resize((resize, resize), Image.Resampling.BILINEAR)
        pixels = np.asarray(plain, np.uint8)
        frames.append(pixels[None] if grey else pixels.transpose(2, 0, 1))
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError("its frames differ in size; use --resize N")
    return np.stack(frames)


def _from_array(array: NDArray[np.generic]) -> list[Image.Image]:
    """The frames of an array as pictures."""
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3):
        raise ValueError(f"expected (T, H, W), (T, H, W, C) or (T, C, H, W), found {array.shape}")
    values = array.astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("its values must be pixels of 0 to 255, or numbers from 0 to 1")
    if array.dtype != np.uint8:
        if values.max() > 1:
            raise ValueError("numbers other than uint8 must lie in [0, 1]")
        values = np.round(values * 255)
    return [Image.fromarray(frame) for frame in values.astype(np.uint8)]
