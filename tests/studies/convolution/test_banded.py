"""Convolution as sparse matrices: what they hold, and that they are banded."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import toeplitz

from sixfold.studies.convolution import Geometry
from sixfold.studies.convolution.banded import bandwidth, im2col_matrix, toeplitz_matrix
from sixfold.studies.convolution.im2col import forward, im2col, input_gradient

CASES = [
    Geometry.of((2, 3, 7, 6), (4, 3, 3, 3)),
    Geometry.of((2, 4, 9, 5), (2, 2, 4, 2), stride=(1, 3), padding=(2, 1), groups=2),
    Geometry.of((1, 2, 12, 9), (2, 2, 2, 3), dilation=(3, 2), padding=(0, 4), stride=2),
    Geometry.of((1, 1, 2, 2), (1, 1, 1, 1), padding=3),  # rows without any element
]


@pytest.mark.parametrize("geometry", CASES, ids=str)
def test_the_matrix_of_im2col_makes_its_columns(geometry: Geometry) -> None:
    images = np.random.default_rng(0).standard_normal(geometry.image_shape)
    patches = im2col_matrix(geometry) @ images.transpose(0, 2, 3, 1).ravel()
    patches = patches.reshape(
        geometry.batch, -1, geometry.kernel[0] * geometry.kernel[1], geometry.channels
    )
    columns = patches.transpose(0, 3, 2, 1).reshape(geometry.batch, -1, patches.shape[1])
    assert np.array_equal(columns, im2col(images, geometry))


@pytest.mark.parametrize("geometry", CASES, ids=str)
def test_the_toeplitz_matrix_convolves_forward_and_backward(geometry: Geometry) -> None:
    random = np.random.default_rng(0)
    x, w, dy = (
        random.standard_normal(shape)
        for shape in (geometry.image_shape, geometry.weight_shape, geometry.output_shape)
    )
    matrix = toeplitz_matrix(w, geometry)
    outputs = (matrix @ x.transpose(0, 2, 3, 1).ravel()).reshape(
        geometry.batch, *geometry.out, geometry.maps
    )
    images = (matrix.T @ dy.transpose(0, 2, 3, 1).ravel()).reshape(
        geometry.batch, *geometry.size, geometry.channels
    )
    expected = forward(x, w, geometry).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-10)
    expected = input_gradient(w, dy, geometry).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(images, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("geometry", CASES, ids=str)
def test_every_output_sees_one_window_of_the_image(geometry: Geometry) -> None:
    matrix = toeplitz_matrix(np.ones(geometry.weight_shape), geometry)
    widths = [
        int(matrix.indices[start:end].max() - matrix.indices[start:end].min()) + 1
        for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        if end > start
    ]
    assert max(widths) <= bandwidth(geometry)


def test_the_window_is_reached_and_moves_with_the_output() -> None:
    geometry = Geometry.of((2, 3, 5, 6), (4, 3, 2, 3))
    matrix = toeplitz_matrix(np.ones(geometry.weight_shape), geometry)
    first = np.array([matrix.indices[start] for start in matrix.indptr[:-1]])
    last = np.array([matrix.indices[end - 1] for end in matrix.indptr[1:]])
    assert set(last - first + 1) == {bandwidth(geometry)} == {27}
    row = first.reshape(2, 4, 4, 4)  # N P Q K
    assert np.array_equal(row[1] - row[0], np.full((4, 4, 4), 5 * 6 * 3))
    assert set(np.diff(row, axis=2).ravel()) == {3}  # one column of pixels to the next


def test_one_channel_without_stride_is_doubly_blocked_toeplitz() -> None:
    geometry = Geometry.of((1, 1, 5, 6), (1, 1, 3, 2))
    weights = np.arange(1.0, 7.0).reshape(1, 1, 3, 2)
    dense = toeplitz_matrix(weights, geometry).toarray()
    blocks = [
        toeplitz(np.r_[row[0], np.zeros(4)], np.r_[row, np.zeros(4)]) for row in weights[0, 0]
    ]
    blank = np.zeros((5, 6))
    rows = [[*[blank] * p, *blocks, *[blank] * (2 - p)] for p in range(3)]
    assert np.array_equal(dense, np.block(rows))


def test_the_matrices_hold_what_the_kernel_sees_and_nothing_for_the_padding() -> None:
    geometry = Geometry.of((3, 4, 6, 6), (8, 2, 3, 3), groups=2)
    assert im2col_matrix(geometry).shape == (3 * 16 * 36, 3 * 144)
    assert im2col_matrix(geometry).nnz == 3 * 16 * 36
    assert toeplitz_matrix(np.ones(geometry.weight_shape), geometry).nnz == 3 * 16 * 8 * 18
    padded = Geometry.of((1, 1, 2, 2), (1, 1, 3, 3), padding=1)
    assert im2col_matrix(padded).nnz == 16
