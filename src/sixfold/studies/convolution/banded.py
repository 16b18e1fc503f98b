"""Convolution of a batch as a banded sparse matrix.

im2col only copies, so it is a linear map with a matrix A of zeros and ones: patches = A x, and
col2im is A^T. The convolution is a linear map of the images too, y = T x, with the weights as the
elements of T, and dx = T^T dy. Both are sparse and, with channels last, banded: the row of output
position (p, q) has its elements within one window of `bandwidth` consecutive pixels, and the
window moves on by stride * C from one q to the next. A batch is the block diagonal of its images.
In the textbook's words T is doubly blocked Toeplitz (one channel, stride 1): the same block of W
columns repeats along the diagonal, and inside a block so do the elements.

Images are flattened as (N, H, W, C), patches as (N, P, Q, R, S, C), outputs as (N, P, Q, K). Taps
that fall on the padding have no element in their row, so images are not padded beforehand.

Legend as in `sixfold.studies.convolution.geometry`.

Arrays: images (N, C, H, W), weights (K, C/G, R, S), outputs and their gradients (N, K, P, Q). Every
function raises ValueError for shapes that do not fit the geometry.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sixfold.studies.convolution.geometry import Array, Geometry

Sparse = Any  # a `scipy.sparse.csr_array`; SciPy comes without type annotations


def im2col_matrix(geometry: Geometry) -> Sparse:
    """A: flattened images (N*H*W*C) to flattened patches (N*P*Q*R*S*C).

    A CSR matrix of int8, so that products have the type of the images, with at most one element in
    a row, which is 1.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> (im2col_matrix(Geometry.of(x.shape, (1, 1, 2, 2))) @ x.ravel()).reshape(4, 4)
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    pixels, inside = _taps(geometry)
    return _csr(np.ones(inside.size, np.int8), pixels.ravel(), inside.ravel(), 1, geometry)


def toeplitz_matrix(weights: Array, geometry: Geometry) -> Sparse:
    """T: flattened images (N*H*W*C) to flattened outputs (N*P*Q*K).

    A CSR matrix with R*S*C/G elements in a row, fewer at the padding.

    >>> w = np.array([[[[1.0, 2.0]]]])
    >>> toeplitz_matrix(w, Geometry.of((1, 1, 1, 4), w.shape)).toarray()
    array([[1., 2., 0., 0.],
           [0., 1., 2., 0.],
           [0., 0., 1., 2.]])
    """
    geometry.expect(weights=weights)
    pixels, inside = _taps(geometry)  # N P Q R S C
    group_channels = geometry.channels // geometry.groups
    group = np.arange(geometry.maps) // (geometry.maps // geometry.groups)  # K
    channel = group[:, None] * group_channels + np.arange(group_channels)  # K C/G
    # What each output channel sees of a patch: N P Q R S K C/G, then K before the taps.
    order = (0, 1, 2, 5, 3, 4, 6)
    seen_pixels = pixels[..., channel].transpose(order)
    seen_inside = inside[..., channel].transpose(order)
    values = np.broadcast_to(weights.transpose(0, 2, 3, 1), seen_pixels.shape)  # K R S C/G
    row = int(np.prod(geometry.weight_shape[1:]))
    return _csr(values.ravel(), seen_pixels.ravel(), seen_inside.ravel(), row, geometry)


def bandwidth(geometry: Geometry) -> int:
    """Length of the window of consecutive elements of x that holds the row of an output.

    >>> bandwidth(Geometry.of((1, 3, 32, 32), (32, 3, 5, 5), padding=2))
    399
    """
    (row_step, column_step), (rows, columns) = geometry.dilation, geometry.kernel
    last = row_step * (rows - 1) * geometry.size[1] + column_step * (columns - 1)
    return (last + 1) * geometry.channels


def forward(images: Array, weights: Array, geometry: Geometry) -> Array:
    """Convolution, by A and a matrix product."""
    geometry.expect(images=images, weights=weights)
    patches = _patches(images, geometry)
    outputs = np.einsum("npqtgc,gktc->npqgk", patches, _taps_last(weights, geometry))
    return _maps_first(outputs, geometry)


def input_gradient(weights: Array, output_gradient: Array, geometry: Geometry) -> Array:
    """Gradient with respect to the images, by a matrix product and the transpose of A."""
    geometry.expect(weights=weights, outputs=output_gradient)
    split = _maps_last(output_gradient, geometry)
    patches = np.einsum("npqgk,gktc->npqtgc", split, _taps_last(weights, geometry))
    flat = im2col_matrix(geometry).T @ patches.ravel()
    images: Array = flat.reshape(geometry.batch, *geometry.size, geometry.channels)
    return images.transpose(0, 3, 1, 2)


def weight_gradient(images: Array, output_gradient: Array, geometry: Geometry) -> Array:
    """Gradient with respect to the weights, by A and a matrix product."""
    geometry.expect(images=images, outputs=output_gradient)
    split = _maps_last(output_gradient, geometry)
    gradient = np.einsum("npqgk,npqtgc->gkct", split, _patches(images, geometry))
    result: Array = gradient.reshape(geometry.weight_shape)
    return result


def _taps(geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For every element of the patches (N, P, Q, R, S, C): its pixel, and whether there is one."""
    (height, width), (out_rows, out_columns) = geometry.size, geometry.out
    n, p, q, r, s, c = np.ix_(
        *(
            np.arange(size)
            for size in (geometry.batch, out_rows, out_columns, *geometry.kernel, geometry.channels)
        )
    )
    i = p * geometry.stride[0] - geometry.padding[0] + r * geometry.dilation[0]
    j = q * geometry.stride[1] - geometry.padding[1] + s * geometry.dilation[1]
    pixels = ((n * height + i) * width + j) * geometry.channels + c
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return pixels, np.broadcast_to(inside, pixels.shape)


def _csr(
    values: Array,
    pixels: NDArray[np.int64],
    inside: NDArray[np.bool_],
    row: int,
    geometry: Geometry,
) -> Sparse:
    """A matrix from `row` taps for each of its rows, without those that fall on the padding."""
    counts = inside.reshape(-1, row).sum(axis=1)
    length = geometry.batch * geometry.channels * geometry.size[0] * geometry.size[1]
    index = np.int32 if max(length, inside.size) < 2**31 else np.int64
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(index)
    elements = (values[inside], pixels[inside].astype(index), pointers)
    return csr_array(elements, shape=(counts.size, length))


def _patches(images: Array, geometry: Geometry) -> Array:
    """Patches (N, P, Q, R*S, G, C/G) of the images, by A."""
    flat = im2col_matrix(geometry) @ images.transpose(0, 2, 3, 1).ravel()
    patches: Array = flat.reshape(
        geometry.batch,
        *geometry.out,
        geometry.kernel[0] * geometry.kernel[1],
        geometry.groups,
        geometry.channels // geometry.groups,
    )
    return patches


def _taps_last(weights: Array, geometry: Geometry) -> Array:
    """Weights (K, C/G, R, S) as (G, K/G, R*S, C/G)."""
    maps, group_channels, rows, columns = geometry.weight_shape
    split = weights.reshape(
        geometry.groups, maps // geometry.groups, group_channels, rows * columns
    )
    return split.transpose(0, 1, 3, 2)


def _maps_last(outputs: Array, geometry: Geometry) -> Array:
    """Outputs (N, K, P, Q) as (N, P, Q, G, K/G)."""
    last = outputs.transpose(0, 2, 3, 1)
    return last.reshape(*last.shape[:3], geometry.groups, geometry.maps // geometry.groups)


def _maps_first(outputs: Array, geometry: Geometry) -> Array:
    """Outputs (N, P, Q, G, K/G) as (N, K, P, Q)."""
    joined = outputs.reshape(geometry.batch, *geometry.out, geometry.maps)
    return joined.transpose(0, 3, 1, 2)
