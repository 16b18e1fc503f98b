"""Pruned layers in really sparse form, for prediction: only the weights that are left are computed.

A convolution is a matrix product of its weights, (K, C R S), with the columns of its input, so one
layer of sparse weights serves both. Two forms, since each has sizes at which it is faster:

* ``csr``: the library's product of a compressed sparse row matrix with a dense one;
* ``axpy``: for every weight that is left, its multiple of a whole row is added (SciPy), which
  needs rows long enough to be worth it, or a single column and the least overhead.

Which form is faster, and whether either beats the dense layer, is a matter of sizes, sparsity,
batch and machine: see `sixfold.prediction.sparse.choose`.

Legend: N batch, C H W input, K output channels, R S kernel, P Q output rows and columns.
"""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

FORMS = ("csr", "axpy")
_CHUNK_ELEMENTS = 1 << 20
"""Elements of the columns made at a time: about what a core's own cache holds a few of."""

_FEW_USED = 0.75  # Below this part of used input positions, the others are left out of the columns


class SparseProduct:
    """W X for a sparse W (K, J), given dense, and dense X (J, M)."""

    def __init__(self, weights: Tensor, form: str) -> None:
        if form not in FORMS:
            raise ValueError(f"unknown form {form!r}: choose {' or '.join(FORMS)}")
        self.shape = tuple(weights.shape)
        array = weights.detach().numpy()
        used = np.flatnonzero((array != 0).any(0))
        # Positions that no weight uses need not even be read.
        self.used = torch.from_numpy(used) if len(used) < _FEW_USED * self.shape[1] else None
        rows = sparse.csr_matrix(array if self.used is None else array[:, used])
        self._multiply = _axpy(rows) if form == "axpy" else _csr(rows)

    def __call__(self, columns: Tensor) -> Tensor:
        """(J, M) -> (K, M)."""
        if self.used is not None:
            columns = columns.index_select(0, self.used)
        return self._multiply(columns)


def _axpy(rows: sparse.csr_matrix) -> Callable[[Tensor], Tensor]:
    def multiply(columns: Tensor) -> Tensor:
        return torch.from_numpy(rows @ columns.contiguous().numpy())

    return multiply


def _csr(rows: sparse.csr_matrix) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        # torch calls its own support a beta, once a process.
        warnings.simplefilter("ignore")
        weights = torch.sparse_csr_tensor(
            torch.from_numpy(rows.indptr.astype(np.int64)),
            torch.from_numpy(rows.indices.astype(np.int64)),
            torch.from_numpy(rows.data),
            rows.shape,
        )
    return partial(torch.mm, weights)


class SparseLinear(nn.Module):
    """A linear layer that computes only the weights that are left. Has no gradient."""

    def __init__(self, layer: nn.Linear, form: str) -> None:
        super().__init__()
        self.product = SparseProduct(layer.weight, form)
        self.bias = None if layer.bias is None else layer.bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """(N, J) -> (N, K)."""
        out = self.product(x.t()).t()
        return out if self.bias is None else out + self.bias


class SparseConv2d(nn.Module):
    """A convolution that computes only the weights that are left. Has no gradient."""

    def __init__(self, layer: nn.Conv2d, form: str) -> None:
        super().__init__()
        self.product = SparseProduct(layer.weight.reshape(len(layer.weight), -1), form)
        self.bias = None if layer.bias is None else layer.bias.detach().clone()
        padding = layer.padding
        assert not isinstance(padding, str), "see can_be_sparse"
        self.geometry = (layer.kernel_size, layer.dilation, padding, layer.stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, P, Q)."""
        k, j = self.product.shape
        p, q = (
            _length(size, *(values[dim] for values in self.geometry))
            for dim, size in enumerate(x.shape[2:])
        )
        out = x.new_empty(len(x), k, p * q)
        images = max(_CHUNK_ELEMENTS // (j * p * q), 1)
        for start in range(0, len(x), images):
            part = x[start : start + images]
            # (n, J, P Q) -> (J, n P Q)
            columns = nn.functional.unfold(part, *self.geometry)
            joined = columns[0] if len(part) == 1 else columns.transpose(0, 1).reshape(j, -1)
            found = self.product(joined)
            out[start : start + images] = found.view(k, len(part), p * q).transpose(0, 1)
        if self.bias is not None:
            out += self.bias[:, None]
        return out.view(len(x), k, p, q)


def _length(size: int, kernel: int, dilation: int, padding: int, stride: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def can_be_sparse(layer: nn.Module) -> bool:
    """Whether a layer has a sparse form: linear, or a plain two-dimensional convolution."""
    if type(layer) is nn.Linear:
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def sparse_layer(layer: nn.Module, form: str) -> nn.Module:
    """A layer's sparse form."""
    if not can_be_sparse(layer):
        raise ValueError(f"{type(layer).__name__} has no sparse form")
    if isinstance(layer, nn.Linear):
        return SparseLinear(layer, form)
    assert isinstance(layer, nn.Conv2d)
    return SparseConv2d(layer, form)
