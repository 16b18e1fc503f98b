"""Into how many parts the factors are divided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a product."""

    inner: int  # parts of k, for the outer product and the panels of blocks
    columns: int  # parts of n, for blocks


def place_corner(corner: tuple[int, int]) -> int:
    """A number for a block of C, by which blocks are spread; the same on every host."""
    return corner[0] * 31 + corner[1]
