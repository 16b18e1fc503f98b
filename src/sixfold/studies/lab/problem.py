"""What a study computes: operands made from their index, anywhere, and the convolution of a batch.

An image is drawn from (seed, its number) alone, so a task has the images that it works on without
being sent them, as a rank of the long-lived job has its own. They stay in a worker's memory.

Legend as in `sixfold.studies.convolution.geometry`: N C H W images, K maps, P Q outputs, R S
kernel.
"""

import functools
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.random import Generator, Philox

from sixfold.studies.convolution.geometry import Array, Geometry
from sixfold.studies.lab.blocks import Range
from sixfold.studies.lab.config import ConvolutionOptions, geometry_of

WEIGHTS = 1 << 62  # the index from which the operand that all tasks need is drawn; no image has it
KEPT_BLOCKS = 1024  # blocks of images that a process keeps


@dataclass(frozen=True, kw_only=True)
class Operands:
    """Operands that can be had anywhere."""

    seed: int = 0
    dtype: str = "float32"  # "float32" or "float64"

    def draw(self, index: int, shape: tuple[int, ...]) -> Array:
        """An array in [-0.5, 0.5) from (seed, index)."""
        generator = Generator(Philox(key=[self.seed, index]))
        values: Array = generator.random(shape, dtype=np.float32) - np.float32(0.5)
        return values.astype(self.dtype, copy=False)


@dataclass(frozen=True, kw_only=True)
class Problem(Operands):
    """A convolution of a batch."""

    geometry: Geometry
    block: int  # images that are handled together

    @property
    def blocks(self) -> int:
        """How many blocks of images there are; the last may be smaller."""
        return -(-self.geometry.batch // self.block)

    def bounds(self, block: int) -> Range:
        """The images of a block."""
        return block * self.block, min((block + 1) * self.block, self.geometry.batch)

    def images(self, block: int) -> Array:
        """(n, C, H, W): the images of a block; not to be written to."""
        return _images(self, block)

    def image(self, number: int) -> Array:
        """(C, H, W)."""
        found: Array = self.images(number // self.block)[number % self.block]
        return found

    def padded(self, block: int) -> Array:
        """(n, C, H + 2 pad, W + 2 pad): the images of a block with zeros around."""
        return self.geometry.pad(self.images(block))

    def all_images(self) -> Array:
        """(N, C, H, W)."""
        return np.concatenate([self.images(block) for block in range(self.blocks)])

    def weights(self) -> Array:
        """(K, C, R, S), in [-0.5, 0.5)."""
        return self.draw(WEIGHTS, self.geometry.weight_shape)

    @property
    def multiply_adds(self) -> int:
        """Points of the loop nest: N K C P Q R S."""
        g = self.geometry
        return g.batch * g.maps * g.channels * prod(g.out) * prod(g.kernel)

    @property
    def pixels(self) -> int:
        """Elements of all images, without padding."""
        return prod(self.geometry.image_shape)


def problem_of(config: ConvolutionOptions) -> Problem:
    """The convolution that settings ask for."""
    return Problem(geometry=geometry_of(config), block=config.block, seed=config.seed)


@functools.lru_cache(maxsize=KEPT_BLOCKS)
def _images(problem: Problem, block: int) -> Array:
    shape = problem.geometry.image_shape[1:]
    images = np.stack([problem.draw(index, shape) for index in range(*problem.bounds(block))])
    images.flags.writeable = False
    return images
