"""How large the blocks are that the designs work on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of blocks; 0 stands for the whole extent of a loop."""

    # design 1: rows, columns, kern_x and kern_y that one job covers
    iterate: tuple[int, int, int, int] = (8, 0, 0, 0)
    maps: int = 8  # output channels that one task of design 1 and of batch x channels has
    tile: tuple[int, int] = (8, 8)  # R and C of design 3
    # rows and columns of the grid in which rows-columns divides an image
    grid: tuple[int, int] = (2, 1)
