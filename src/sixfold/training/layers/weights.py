"""A parameter as a link uses it, and how its gradient reaches its place."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Weight(NamedTuple):
    """A parameter as a link uses it."""

    place: int  # of its gradient, among all parameters'
    value: Tensor  # what is computed with: the parameter itself, or its copy in fewer bits


def cast(x: Tensor, like: Tensor) -> Tensor:
    """A tensor in the numbers of another."""
    return x if x.dtype == like.dtype else x.to(like.dtype)


def put(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write a product of matrices to where a gradient belongs, whatever its shape there."""
    out = out.view(left.shape[0], right.shape[1])
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(torch.mm(left, right))


def put_gradients(places: Sequence[Tensor], found: Sequence[Tensor | None]) -> None:
    """Write the first of what autograd has found: zeros where there is no influence.

    Those of `nn.Embedding(sparse=True)` are sparse.
    """
    for place, gradient in zip(places, found, strict=False):
        if gradient is None:
            place.zero_()
        else:
            place.copy_(gradient.to_dense())
