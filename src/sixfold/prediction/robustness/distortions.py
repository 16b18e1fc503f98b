"""The kinds of distortion: what each does to a batch of images at a given strength.

Pixels are 0 to 255 before and after, rounded and cut off as a camera would. What is random is drawn
from (seed, kind, index of the image) alone, so an image is distorted in the same way by whoever
computes it, in whatever batch; the strengths of one kind share their draws.

Legend: N images, C channels, H rows, W columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.random_keys import key
from sixfold.prediction.robustness import warps
from sixfold.prediction.robustness.config import DistortionConfig
from sixfold.prediction.robustness.warps import Floats, blurred, grow, shrink

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """A kind of distortion."""

    title: str
    unit: str  # of its strength
    # from images (N, C, H, W) of 0 to 255, the strength, and the keys of the images, to distorted
    # images, which may lie outside of 0 to 255
    apply: Callable[[Floats, float, list[int]], Floats]
    least: float = 0.0  # strengths must be greater than this, at which nothing is changed


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """One kind at one strength."""

    kind: str  # its name in `KINDS`
    strength: float  # in the kind's unit
    seed: int = 0

    def __call__(self, images: Pixels, indices: NDArray[np.int64]) -> Pixels:
        """Distort (N, C, H, W)."""
        if not len(images):
            return images
        keys = [key(self.seed, "distortion", self.kind, int(index)) for index in indices]
        found = KINDS[self.kind].apply(images.astype(np.float32), self.strength, keys)
        return np.rint(np.clip(found, 0, 255)).astype(np.uint8)


def normals(keys: list[int], shape: tuple[int, ...]) -> Floats:
    """Standard normals, (N, *shape), of each image by its own key."""
    out = np.empty((len(keys), *shape), np.float32)
    for image, own in zip(out, keys, strict=True):
        np.random.Generator(np.random.Philox(key=own)).standard_normal(out=image, dtype=np.float32)
    return out


def downsample(images: Floats, factor: float, _: list[int]) -> Floats:
    """Fewer rows and columns, each the mean of what it covers; brought back to size bilinearly."""
    for dim in (-2, -1):
        size = images.shape[dim]
        small = shrink(size, factor).along(images, dim)
        images = grow(small.shape[dim], size).along(small, dim)
    return images


def noise(images: Floats, sigma: float, keys: list[int]) -> Floats:
    """Independent Gaussian noise on every pixel and channel."""
    return images + np.float32(255 * sigma) * normals(keys, images.shape[1:])


def rotate(images: Floats, degrees: float, keys: list[int]) -> Floats:
    """Turned about the middle, half of the images to each side."""
    sides = np.array([1.0 if own & 1 else -1.0 for own in keys])
    return warps.look(images, warps.rotation(images.shape[2], images.shape[3], degrees * sides))


def barrel(images: Floats, strength: float, _: list[int]) -> Floats:
    """The middle magnified by 1 + strength, the corners fixed."""
    return warps.look(images, warps.barrel(images.shape[2], images.shape[3], strength))


def elastic(images: Floats, strength: float, keys: list[int]) -> Floats:
    """Smooth random displacements."""
    draws = normals(keys, (2, *images.shape[2:]))
    return warps.look(images, warps.elastic(draws, strength))


KINDS = {
    "downsample": Kind("Down-sampling", "times fewer pixels a side", downsample, least=1.0),
    "noise": Kind("Gaussian noise", "standard deviation, part of full scale", noise),
    "blur": Kind(
        "Gaussian blur", "standard deviation, pixels", lambda x, sigma, _: blurred(x, sigma)
    ),
    "rotate": Kind("Rotation", "degrees", rotate),
    "barrel": Kind("Barrel distortion", "magnification of the middle, beyond 1", barrel),
    "elastic": Kind("Elastic distortion", "standard deviation of displacements, pixels", elastic),
}
"""Name, which is also the option's, to kind."""


def strengths(kind: str, text: str) -> list[float]:
    """The strengths of one kind, in rising order, each once."""
    found: set[float] = set()
    least = KINDS[kind].least
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not least < value < math.inf:
            raise UserError(
                f"--{kind} {word!r}: expected numbers above {least:g} ({KINDS[kind].unit}), with "
                f"commas between, or '' to leave {kind} out"
            )
        found.add(value)
    return sorted(found)


def planned(config: DistortionConfig) -> list[Distortion]:
    """Every kind at every strength, kinds in the order of `KINDS`."""
    found: list[Distortion] = []
    problems: list[str] = []
    for kind in KINDS:
        try:
            found += [
                Distortion(kind=kind, strength=strength, seed=config.seed)
                for strength in strengths(kind, getattr(config, kind))
            ]
        except UserError as error:
            problems += error.problems
    raise_problems(problems)
    return found
