"""The product of two blocks, on one thread, with the time that it takes."""

from __future__ import annotations

import time
from typing import Any

import torch

from sixfold.studies.convolution.geometry import Array


def multiply(left: Array, right: Array) -> Array:
    """`left @ right` by torch's kernel."""
    with torch.inference_mode():
        product: Array = torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return product


def timed_product(left: Array, right: Array, kernel_s: Any) -> Array:
    """`multiply`; the time is added to an accumulator."""
    began = time.perf_counter()
    product = multiply(left, right)
    kernel_s.add(time.perf_counter() - began)
    return product
