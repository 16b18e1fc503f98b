"""im2col, its adjoint and its memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional

from sixfold.studies.convolution import Geometry
from sixfold.studies.convolution.im2col import col2im, im2col, im2col_bytes

CASES = [
    Geometry.of((2, 3, 7, 6), (4, 3, 3, 3)),
    Geometry.of((2, 3, 9, 5), (2, 3, 4, 2), stride=(1, 3), padding=(2, 0)),
    Geometry.of((1, 2, 12, 9), (2, 2, 2, 3), dilation=(3, 2), padding=(0, 4), stride=2),
    Geometry.of((1, 1, 6, 6), (2, 1, 2, 2), stride=3),
]


@pytest.mark.parametrize("geometry", CASES, ids=str)
def test_columns_are_those_of_unfold_and_fold(geometry: Geometry) -> None:
    how = {
        "kernel_size": geometry.kernel,
        "stride": geometry.stride,
        "padding": geometry.padding,
        "dilation": geometry.dilation,
    }
    images = np.random.default_rng(0).standard_normal(geometry.image_shape)
    columns = im2col(images, geometry)
    assert np.array_equal(columns, functional.unfold(torch.tensor(images), **how).numpy())
    folded = functional.fold(torch.tensor(columns), geometry.size, **how).numpy()
    np.testing.assert_allclose(col2im(columns, geometry), folded, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("geometry", CASES, ids=str)
def test_col2im_is_the_adjoint_of_im2col(geometry: Geometry) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal(geometry.image_shape)
    columns = im2col(x, geometry)
    c = random.standard_normal(columns.shape)
    assert np.vdot(columns, c) == pytest.approx(np.vdot(x, col2im(c, geometry)), rel=1e-12)


def test_columns_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns are \(2, 27, 21\), expected \(2, 27, 20\)"):
        col2im(np.zeros((2, 27, 21)), CASES[0])


def test_columns_are_a_copy() -> None:
    images = np.zeros(CASES[3].image_shape)
    im2col(images, CASES[3])[:] = 1.0
    assert not images.any()


@pytest.mark.parametrize("geometry", CASES, ids=str)
@pytest.mark.parametrize("itemsize", [4, 8])
def test_memory_is_what_the_arrays_have(geometry: Geometry, itemsize: int) -> None:
    images = np.zeros(geometry.image_shape, f"f{itemsize}")
    columns = im2col(images, geometry)
    memory = im2col_bytes(geometry, itemsize=itemsize)
    assert memory.input_bytes == images.nbytes
    assert memory.column_bytes == columns.nbytes
    assert memory.image_bytes == columns[:1].nbytes
    assert memory.ratio == pytest.approx(columns.nbytes / images.nbytes)
    assert memory.peak_bytes is None


def test_the_measured_peak_is_columns_and_padded_images() -> None:
    geometry = Geometry.of((20, 3, 32, 32), (32, 3, 5, 5), padding=2)
    memory = im2col_bytes(geometry, measure=True)
    assert memory.ratio == 25
    padded = 20 * 3 * 36 * 36 * 4
    assert memory.peak_bytes is not None
    assert 0 <= memory.peak_bytes - memory.column_bytes - padded < 100_000
    assert "measured peak" in str(memory)
    assert not tracemalloc.is_tracing()
