"""The convolution that a study computes: images and weights made from their index, anywhere.

An image is drawn from (seed, its number) alone, so a task has the images that it works on without
being sent them, as a rank of the long-lived job has its own. They stay in a worker's memory.

Legend as in `sixfold.studies.convolution.geometry`: N C H W images, K maps, P Q outputs, R S
kernel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, Philox

from sixfold.studies.convolution.geometry import Array, Geometry

_WEIGHTS = 1 << 62
"""The index from which weights are drawn; no image has it."""

KEPT_BLOCKS = 1024
"""Blocks of images that a process keeps."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A convolution of a batch."""

    geometry: Geometry
    block: int  # images that are handled together
    seed: int = 0
    dtype: str = "float32"  # "float32" or "float64"

    @property
    def blocks(self) -> int:
        """How many blocks of images there are; the last may be smaller."""
        return -(-self.geometry.batch // self.block)

    def bounds(self, block: int) -> tuple[int, int]:
        """The first image of a block, and the one behind its last."""
        return block * self.block, min((block + 1) * self.block, self.geometry.batch)

    def images(self, block: int) -> Array:
        """(n, C, H, W): the images of a block; not to be written to."""
        return _images(self, block)

    def padded(self, block: int) -> Array:
        """(n, C, H + 2 pad, W + 2 pad): the same with zeros around."""
        return self.geometry.pad(self.images(block))

    def all_images(self) -> Array:
        """(N, C, H, W)."""
        return np.concatenate([self.images(block) for block in range(self.blocks)])

    def weights(self) -> Array:
        """(K, C, R, S), in [-0.5, 0.5)."""
        return _draw(self, _WEIGHTS, self.geometry.weight_shape)

    @property
    def multiply_adds(self) -> int:
        """Points of the loop nest: N K C P Q R S."""
        g = self.geometry
        (rows, columns), (kernel_rows, kernel_columns) = g.out, g.kernel
        return g.batch * g.maps * g.channels * rows * columns * kernel_rows * kernel_columns

    @property
    def pixels(self) -> int:
        """Elements of all images, without padding."""
        g = self.geometry
        return g.batch * g.channels * g.size[0] * g.size[1]


def _draw(problem: Problem, index: int, shape: tuple[int, ...]) -> Array:
    """An array in [-0.5, 0.5) from (seed, index)."""
    generator = Generator(Philox(key=[problem.seed, index]))
    values: Array = generator.random(shape, dtype=np.float32) - np.float32(0.5)
    return values.astype(problem.dtype, copy=False)


@functools.lru_cache(maxsize=KEPT_BLOCKS)
def _images(problem: Problem, block: int) -> Array:
    first, last = problem.bounds(block)
    shape = problem.geometry.image_shape[1:]
    images = np.stack([_draw(problem, index, shape) for index in range(first, last)])
    images.flags.writeable = False
    return images
