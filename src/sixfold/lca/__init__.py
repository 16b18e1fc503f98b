"""Sparse coding by locally competitive algorithms (LCA), batched and parallel.

>>> import torch
>>> from sixfold.lca import LCA
>>> layer = LCA(channels=1, atoms=8, kernel=5, stride=1, padding="half", lambda_=0.1)
>>> layer(torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))).shape
torch.Size([2, 8, 12, 12])

Nothing heavy is imported before one of the names is used.
"""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.lca.config import DynamicsConfig
    from sixfold.lca.dictionary import load_dictionary
    from sixfold.lca.geometry import Geometry
    from sixfold.lca.interaction import LateralInhibition
    from sixfold.lca.module import LCA
    from sixfold.lca.solver import Solution, Solver
    from sixfold.lca.transformer import LCATransformer

__all__ = [
    "LCA",
    "DynamicsConfig",
    "Geometry",
    "LCATransformer",
    "LateralInhibition",
    "Solution",
    "Solver",
    "load_dictionary",
]

__getattr__ = lazy(
    __name__,
    {
        "config": ("DynamicsConfig",),
        "dictionary": ("load_dictionary",),
        "geometry": ("Geometry",),
        "interaction": ("LateralInhibition",),
        "module": ("LCA",),
        "solver": ("Solution", "Solver"),
        "transformer": ("LCATransformer",),
    },
)
