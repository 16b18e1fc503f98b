"""Training with shared weights: all weights of a cluster have one value, and keep having one.

S. Han, H. Mao, W. Dally, "Deep compression", ICLR 2016, section 3.3: the gradient of a centroid is
the sum of its weights' gradients,

    dL/dC_k  =  sum over i  dL/dW_i  [cluster of i is k]

Here every weight of the cluster is given that sum as its gradient before the update rule sees it.
They start equal and rules work element by element, so they move alike, and no second set of
parameters is needed. After the update all take the value of the cluster's first weight: kernels
may round the last elements of a vector otherwise than the rest. Weights of cluster 0 are removed:
value and gradient are 0.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from sixfold.core import tensor_file
from sixfold.core.errors import UserError
from sixfold.core.files import write_atomically
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer, WrappedRule

Clusters = dict[str, Tensor]
"""Name of a weight tensor -> int16 tensor of its shape: 0 removed, k > 0 the k-th cluster."""


class SharedUpdate(WrappedRule):
    """An update rule that keeps the weights of each cluster equal; wraps any other, of fresh state.

    `clusters` (P,) int64 are from `cluster_vector`.
    """

    def __init__(self, rule: Optimizer, clusters: Tensor) -> None:
        super().__init__(rule)
        self._removed = clusters == 0
        self._shared = torch.nonzero(clusters > 0).reshape(-1)
        self._cluster = clusters[self._shared] - 1
        self._count = int(self._cluster.max()) + 1 if len(self._cluster) else 0
        self._first = torch.zeros(self._count, dtype=torch.int64)
        # Of several writes to one place the last one stays: go from the end to the beginning.
        self._first[self._cluster.flip(0)] = self._shared.flip(0)

    def update(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """One step; see `sixfold.training.step.update_rule.Optimizer.update`."""
        sums = torch.zeros(self._count, dtype=gradient.dtype)
        sums.index_add_(0, self._cluster, gradient[self._shared])
        gradient[self._removed] = 0
        gradient[self._shared] = sums[self._cluster]
        self.rule.update(weights, gradient, lr)
        weights[self._shared] = weights[self._first][self._cluster]


def cluster_vector(clusters: Clusters, state: FlatState) -> Tensor:
    """Clusters as a (P,) int64 vector: -1 for weights of their own, 0 for removed ones.

    Clusters of different tensors are different ones. A ValueError if a tensor is named that the
    network does not have, or of another shape.
    """
    vector = torch.full(state.parameters.shape, -1, dtype=torch.int64)
    views = dict(state.named_views(vector))
    first = 0
    for name, numbers in clusters.items():
        if name not in views or views[name].shape != numbers.shape:
            has = tuple(views[name].shape) if name in views else "no such tensor"
            raise ValueError(f"the clusters have {name} {tuple(numbers.shape)}, the network {has}")
        wide = numbers.long()
        views[name].copy_(torch.where(wide > 0, wide + first, 0))
        first += int(wide.max()) if wide.numel() else 0
    return vector


def check_shared(state: FlatState, clusters: Clusters) -> None:
    """A ValueError unless the weights of every cluster are equal, and removed ones zero."""
    weights = dict(state.named_views(state.parameters))
    for name, numbers in clusters.items():
        flat, wide = weights[name].reshape(-1), numbers.reshape(-1).long()
        values = torch.zeros(int(wide.max()) + 1 if wide.numel() else 1, dtype=flat.dtype)
        values[wide] = flat
        values[0] = 0
        if not torch.equal(values[wide], flat):
            raise ValueError(f"the weights of {name} are not equal within its clusters")


def save_clusters(path: Path, clusters: Mapping[str, Tensor]) -> None:
    """Write clusters, atomically; a `RunError` if they cannot be written."""
    write_atomically(path, tensor_file.pack(dict(clusters), {"sixfold": "clusters"}))


def load_clusters(path: Path) -> Clusters:
    """Read clusters; a `UserError` if the file is damaged or holds none."""
    try:
        with tensor_file.open_tensors(path) as file:
            if (file.metadata() or {}).get("sixfold") != "clusters":
                raise UserError(f"{path} holds no clusters that Sixfold wrote")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"the clusters {path} cannot be read ({error})") from error
