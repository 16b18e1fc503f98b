"""Random convolutions, and what PyTorch makes of them in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional

from sixfold.studies.convolution.geometry import Array, Geometry


@dataclass(frozen=True)
class Case:
    """Random operands of a convolution, with the outputs and gradients that PyTorch gives."""

    images: Array
    weights: Array
    gradient: Array
    outputs: Array
    image_gradient: Array
    weight_gradient: Array


Solve = Callable[[Geometry], Case]


@pytest.fixture(scope="session")
def solve() -> Solve:
    """A function that draws operands for a geometry and has PyTorch convolve them."""
    return _solve


def _solve(geometry: Geometry) -> Case:
    random = np.random.default_rng(geometry.batch + 7 * geometry.maps)
    images = random.standard_normal(geometry.image_shape)
    weights = random.standard_normal(geometry.weight_shape)
    gradient = random.standard_normal(geometry.output_shape)
    x, w = (torch.tensor(array, requires_grad=True) for array in (images, weights))
    y = functional.conv2d(
        x,
        w,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
    )
    dx, dw = torch.autograd.grad(y, (x, w), torch.tensor(gradient))
    return Case(
        images, weights, gradient, y.detach().numpy(), dx.detach().numpy(), dw.detach().numpy()
    )
