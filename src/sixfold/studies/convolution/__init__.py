"""Convolution for study: the same sums by loops, by matrix products and by sparse matrices.

`direct` runs the loop nest in any order, `locality` says what an order means for memory; `im2col`
and `banded` turn it into matrix products, `depthwise` splits it in two. They need NumPy only
(`banded` SciPy too), work in float32 or float64, and are references: training does not use them.
"""

from sixfold.studies.convolution.geometry import Geometry

__all__ = ["Geometry"]
