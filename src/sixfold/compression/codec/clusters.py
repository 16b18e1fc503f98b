"""Weight sharing: a tensor's values replaced by those of a few clusters, found by k-means.

S. Han, H. Mao, W. Dally, "Deep compression", ICLR 2016, section 3: the weights that are not zero
are divided into K clusters so that the sum of squared distances to the clusters' means is small
(Lloyd's algorithm), starting from centroids that are

    linear   evenly spaced between the least and the greatest weight: large weights, which are few
             and matter most, get centroids too; the paper found it best
    density  at evenly spaced quantiles
    random   at weights drawn at random

In one dimension the clusters are stretches of the sorted weights, so a round takes K look-ups and
differences of running sums instead of n K distances.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_ROUNDS = 200
_LARGEST_HALF = 65504.0
Floats = NDArray[np.float64]


def first_centroids(values: Floats, count: int, start: str, seed: int) -> Floats:
    """Where k-means begins, (K,), from (n,) values; both ascending."""
    if start == "linear":
        return np.linspace(values[0], values[-1], count)
    if start == "density":
        return np.quantile(values, (np.arange(count) + 0.5) / count)
    chosen = np.random.default_rng(seed).choice(len(values), count, replace=len(values) < count)
    return np.sort(values[chosen])


def k_means(values: Floats, centroids: Floats, rounds: int = MOST_ROUNDS) -> Floats:
    """Lloyd's algorithm until nothing moves; (n,) values and (K,) centroids, ascending.

    A centroid that no value is near to stays where it was.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    bounds = None
    for _ in range(rounds):
        before, bounds = bounds, _bounds(values, centroids)
        if before is not None and np.array_equal(before, bounds):
            break
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        centroids = np.where(counts > 0, means, centroids)
    return centroids


def _bounds(values: Floats, centroids: Floats) -> NDArray[np.int64]:
    """Where the clusters of the sorted values begin, and where the last ends, (K + 1,)."""
    middles = (centroids[:-1] + centroids[1:]) / 2
    inner = np.searchsorted(values, middles, side="right")
    return np.concatenate([[0], inner, [len(values)]]).astype(np.int64)


def nearest(values: Floats, centroids: Floats) -> NDArray[np.int64]:
    """For each value the number of the nearest centroid; of two equally near, the lower."""
    return np.searchsorted((centroids[:-1] + centroids[1:]) / 2, values, side="left")


def share(weights: Tensor, bits: int, start: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Give a tensor's weights at most 2**bits - 1 different values besides zero.

    The weights with shared values, and each one's cluster: int16, 0 for zeros, which stay zeros.
    """
    flat = weights.detach().reshape(-1)
    places = torch.nonzero(flat).reshape(-1)
    values = flat[places].double().numpy()
    shared, numbers = torch.zeros_like(flat), torch.zeros(len(flat), dtype=torch.int16)
    if len(values):
        ordered = np.sort(values)
        centroids = k_means(ordered, first_centroids(ordered, (1 << bits) - 1, start, seed))
        used, clusters = np.unique(nearest(values, centroids), return_inverse=True)
        shared[places] = torch.from_numpy(centroids[used][clusters]).to(flat.dtype)
        numbers[places] = torch.from_numpy(clusters.astype(np.int16)) + 1
    return shared.reshape(weights.shape), numbers.reshape(weights.shape)


def halved(tensor: Tensor) -> Tensor:
    """A float tensor rounded to float16: within 2**-11 of each element, or 2**-25 of tiny ones.

    Tensors with elements above what float16 holds, and those not of floats, come back as they are.
    """
    if not tensor.is_floating_point() or not bool((tensor.abs() <= _LARGEST_HALF).all()):
        return tensor
    return tensor.half().to(tensor.dtype)
