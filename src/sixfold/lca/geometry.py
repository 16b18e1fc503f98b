"""The sizes of a sparse code: image, atoms, stride, and which positions an atom can take.

Legend of shapes in this room: N elements of a batch, W elements of a lane; C H W input channels,
rows and columns; K atoms; R S rows and columns of an atom; P Q rows and columns of positions.
One-dimensional signals have H = R = 1; a fully connected dictionary has atoms of the whole
image's size and one position.
"""

import math
from dataclasses import dataclass

from sixfold.core.errors import UserError, raise_problems

BOUNDARIES = ("free", "zero")
MIN_WIDTH = 8
"""Fewest elements in a lane: products of one or two rows take another path through the matrix
library and have other bits (seen up to 4 rows; 8 leaves room)."""

MAX_WIDTH = 64
LANE_NUMBERS = 1 << 17
"""Numbers in a lane's code: four such arrays of float32 fill the 2 MB of a core's cache."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What is coded, by what, and where.

    >>> geometry = Geometry(channels=3, height=32, width=32, atoms=64, kernel=(9, 9),
    ...                     stride=(2, 2), padding=(4, 4))
    >>> geometry.positions, geometry.codes, geometry.lane_width
    ((16, 16), 16384, 8)
    >>> geometry.residual_macs, geometry.gram_macs
    (31104, 331776)
    """

    channels: int  # C
    height: int  # H
    width: int  # W
    atoms: int  # K
    kernel: tuple[int, int]  # (R, S), rows and columns of an atom
    stride: tuple[int, int] = (1, 1)  # from one position to the next, by rows and columns
    # pixels by which positions reach beyond the image, on each side
    padding: tuple[int, int] = (0, 0)
    # what lies beyond the image: `free` counts for nothing, `zero` must be reconstructed too
    boundary: str = "free"

    def __post_init__(self) -> None:
        raise_problems(self.problems())

    def problems(self) -> list[str]:
        """Everything that does not fit, one line each."""
        sizes = (self.channels, self.height, self.width, self.atoms, *self.kernel, *self.stride)
        if min(sizes) < 1 or min(self.padding) < 0:
            return [f"sizes must be at least 1 and padding at least 0: {self.describe()}"]
        found = []
        if self.boundary not in BOUNDARIES:
            found.append(f"boundary {self.boundary!r}: choose {' or '.join(BOUNDARIES)}")
        for axis, name in enumerate(("rows", "columns")):
            size, kernel, pad = self.image[1 + axis], self.kernel[axis], self.padding[axis]
            if kernel > size + 2 * pad:
                found.append(
                    f"atoms of {kernel} {name} do not fit into {size} + 2 x {pad} {name}: use a "
                    "smaller kernel or more padding"
                )
            elif kernel > size + pad:
                found.append(
                    f"atoms of {kernel} {name} reach beyond {size} {name} wherever they lie, so "
                    "some of their pixels are never used: use a smaller kernel"
                )
            if pad >= kernel:
                found.append(
                    f"padding {pad} leaves atoms of {kernel} {name} wholly outside of the image: "
                    "it must be smaller than the kernel"
                )
        return found

    def describe(self) -> str:
        """The sizes in one line."""
        by = "x".join
        return (
            f"{self.atoms} atoms {by(map(str, (*self.kernel, self.channels)))}, stride "
            f"{by(map(str, self.stride))}, padding {by(map(str, self.padding))}, input "
            f"{by(map(str, (self.channels, self.height, self.width)))}"
        )

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def positions(self) -> tuple[int, int]:
        """(P, Q), rows and columns of positions."""
        rows, columns = (
            (self.image[1 + axis] + 2 * self.padding[axis] - self.kernel[axis]) // self.stride[axis]
            + 1
            for axis in (0, 1)
        )
        return rows, columns

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of the image that some atom reaches; the rest is left out of it all."""
        return min(self.height, self._end(0)), min(self.width, self._end(1))

    def _end(self, axis: int) -> int:
        last = (self.positions[axis] - 1) * self.stride[axis] - self.padding[axis]
        return last + self.kernel[axis]

    @property
    def codes(self) -> int:
        """Numbers in the code of one element, K P Q."""
        return self.atoms * math.prod(self.positions)

    @property
    def atom_shape(self) -> tuple[int, int, int]:
        """(C, R, S)."""
        return self.channels, *self.kernel

    @property
    def dense(self) -> bool:
        """True for a fully connected dictionary: every atom is a whole image."""
        return self.kernel == (self.height, self.width) and self.padding == (0, 0)

    @property
    def taps(self) -> tuple[int, int]:
        """Rows and columns of an atom in units of the stride: as far as atoms touch."""
        return -(-self.kernel[0] // self.stride[0]), -(-self.kernel[1] // self.stride[1])

    @property
    def residual_macs(self) -> int:
        """Multiply-adds per code position in residual form: D a and D^T r, 2 K C R S."""
        return 2 * self.atoms * math.prod(self.atom_shape)

    @property
    def gram_macs(self) -> int:
        """Multiply-adds per code position in Gram form: K^2 for every pair of touching places."""
        reach = 1 if self.dense else math.prod(2 * tap - 1 for tap in self.taps)
        return self.atoms**2 * reach

    @property
    def gram_is_exact(self) -> bool:
        """Whether D^T D is the same at every position, so that one set of kernels stands for it.

        Beyond a free boundary atoms are cut off, and their products with them.
        """
        return self.boundary == "zero" or self.padding == (0, 0)

    @property
    def form(self) -> str:
        """The form that needs less work: `gram` or `residual`."""
        cheaper = self.gram_macs < self.residual_macs
        return "gram" if cheaper and self.gram_is_exact else "residual"

    @property
    def lane_width(self) -> int:
        """Elements that are computed together: a power of two that keeps a lane in the cache.

        It follows from the sizes alone, never from the batch, because it may alter bits.
        """
        fitting = max(LANE_NUMBERS // self.codes, 1)
        return min(max(1 << (fitting.bit_length() - 1), MIN_WIDTH), MAX_WIDTH)


def pair(text: str, what: str) -> tuple[int, int]:
    """Rows and columns from ``9`` or ``9x7``.

    >>> pair("9", "--kernel"), pair("1x16", "--kernel")
    ((9, 9), (1, 16))
    """
    words = text.lower().split("x")
    if len(words) in (1, 2) and all(word.isdecimal() for word in words):
        return int(words[0]), int(words[-1])
    raise UserError(f"{what} {text}: expected a whole number or ROWSxCOLUMNS, such as 9 or 1x16")
