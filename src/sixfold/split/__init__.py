"""Networks divided over ranks: who holds which part of every tensor, and what is exchanged.

A `Layout` says who holds what; a `Move` is the exchange that leads from one layout to another;
`divide` turns any network of supported layers into the part of it that one rank computes.
"""

from sixfold.split.grid import Grid, Mesh, parse_grid
from sixfold.split.network import DividedNetwork, divide

__all__ = ["DividedNetwork", "Grid", "Mesh", "divide", "parse_grid"]
