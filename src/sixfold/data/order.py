"""The order in which an epoch visits the training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sixfold.data.splits import shuffled


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Order of the images in an epoch: the same on every rank, machine and version of NumPy.

    Args:
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        n: number of training images.

    Returns:
        Every integer from 0 to n - 1 once, (n,).

    >>> sorted(permutation(0, 3, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    return shuffled(n, seed, "order", epoch)
