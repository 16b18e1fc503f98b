"""Convolution as a matrix product: im2col, its adjoint col2im, and what they cost in memory.

K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document
processing", 2006. Every patch of the image that the kernel sees becomes a column; the convolution
is then one product of the weights (K, C R S) with the columns (C R S, P Q). The columns hold each
pixel about R S / stride^2 times, which is the price.

    forward           y  = w cols
    weight gradient   dw = sum over images of dy cols^T
    input gradient    dx = col2im(w^T dy)

col2im adds each element of the columns back to the pixel that it came from: it is the transpose of
im2col as a linear map, so that <im2col(x), c> = <x, col2im(c)>.

With groups, all of this is done for each group by itself. Legend as in
`sixfold.studies.convolution.geometry`.

Arrays: images (N, C, H, W), weights (K, C/G, R, S), outputs and their gradients (N, K, P, Q). Every
function raises ValueError for shapes that do not fit the geometry.
"""

import tracemalloc
from dataclasses import dataclass

import numpy as np

from sixfold.studies.convolution.geometry import Array, Geometry


def im2col(images: Array, geometry: Geometry) -> Array:
    """The patches that the kernel sees, as columns (N, C*R*S, P*Q).

    Rows are in the order (C, R, S), as `torch.nn.functional.unfold` gives them.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> im2col(x, Geometry.of(x.shape, (1, 1, 2, 2)))[0]
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    geometry.expect(images=images)
    (down, right), (row_step, column_step) = geometry.stride, geometry.dilation
    reach = row_step * (geometry.kernel[0] - 1) + 1, column_step * (geometry.kernel[1] - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(geometry.pad(images), reach, axis=(2, 3))
    patches = windows[:, :, ::down, ::right, ::row_step, ::column_step]  # N C P Q R S
    columns: Array = patches.transpose(0, 1, 4, 5, 2, 3).reshape(_columns_shape(geometry))
    return columns


def col2im(columns: Array, geometry: Geometry) -> Array:
    """The adjoint of `im2col`, (N, C, H, W): every element is added to its pixel."""
    if columns.shape != _columns_shape(geometry):
        raise ValueError(f"columns are {columns.shape}, expected {_columns_shape(geometry)}")
    images = geometry.batch, geometry.channels
    split = columns.reshape(*images, *geometry.kernel, *geometry.out)
    padded = np.zeros((*images, *geometry.padded), columns.dtype)
    for tap, seen in geometry.taps():
        # One tap of the kernel meets every pixel at most once, so += adds all of them.
        padded[:, :, *seen] += split[:, :, *tap]
    return geometry.crop(padded)


def forward(images: Array, weights: Array, geometry: Geometry) -> Array:
    """Convolution: weights times columns."""
    geometry.expect(images=images, weights=weights)
    outputs = _by_group(weights, geometry) @ _grouped(im2col(images, geometry), geometry)
    return outputs.reshape(geometry.output_shape)


def input_gradient(weights: Array, output_gradient: Array, geometry: Geometry) -> Array:
    """Gradient with respect to the images: col2im of the transposed weights times dy."""
    geometry.expect(weights=weights, outputs=output_gradient)
    transposed = _by_group(weights, geometry).transpose(0, 2, 1)  # G, C/G*R*S, K/G
    columns = transposed @ _grouped(output_gradient, geometry)
    return col2im(columns.reshape(_columns_shape(geometry)), geometry)


def weight_gradient(images: Array, output_gradient: Array, geometry: Geometry) -> Array:
    """Gradient with respect to the weights: dy times the transposed columns, over all images."""
    geometry.expect(images=images, outputs=output_gradient)
    columns = _grouped(im2col(images, geometry), geometry)  # N, G, C/G*R*S, P*Q
    products = _grouped(output_gradient, geometry) @ columns.transpose(0, 1, 3, 2)
    gradient: Array = products.sum(axis=0).reshape(geometry.weight_shape)
    return gradient


@dataclass(frozen=True, kw_only=True)
class Im2colMemory:
    """What the columns of a batch take."""

    input_bytes: int  # the images of the batch
    column_bytes: int  # their columns, N*C*R*S*P*Q elements
    image_bytes: int  # the columns of one image
    ratio: float  # columns to images
    # The most that NumPy held at a time while making them, padded images included, if measured.
    peak_bytes: int | None = None

    def __str__(self) -> str:
        measured = "" if self.peak_bytes is None else f", measured peak {self.peak_bytes:,} bytes"
        return (
            f"images {self.input_bytes:,} bytes, columns {self.column_bytes:,} bytes "
            f"({self.ratio:.2f} times; {self.image_bytes:,} an image){measured}"
        )


def im2col_bytes(geometry: Geometry, *, itemsize: int = 4, measure: bool = False) -> Im2colMemory:
    """The memory that im2col takes, from the formula N*C*R*S*P*Q*itemsize.

    With `measure`, the columns of a batch of zeros are made and NumPy's allocations watched.

    >>> print(im2col_bytes(Geometry.of((100, 3, 32, 32), (32, 3, 5, 5), padding=2)))
    images 1,228,800 bytes, columns 30,720,000 bytes (25.00 times; 307,200 an image)
    """
    batch, rows, width = _columns_shape(geometry)
    pixels = geometry.channels * geometry.size[0] * geometry.size[1]
    return Im2colMemory(
        input_bytes=batch * pixels * itemsize,
        column_bytes=batch * rows * width * itemsize,
        image_bytes=rows * width * itemsize,
        ratio=rows * width / pixels,
        peak_bytes=_peak_bytes(geometry, itemsize) if measure else None,
    )


def _peak_bytes(geometry: Geometry, itemsize: int) -> int:
    """The most that NumPy holds at a time while it makes the columns."""
    images = np.zeros(geometry.image_shape, np.dtype(f"f{itemsize}"))
    nested = tracemalloc.is_tracing()
    if not nested:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        im2col(images, geometry)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not nested:
            tracemalloc.stop()
    return peak - before


def _columns_shape(geometry: Geometry) -> tuple[int, int, int]:
    """(N, C*R*S, P*Q)."""
    (kernel_rows, kernel_columns), (rows, width) = geometry.kernel, geometry.out
    return geometry.batch, geometry.channels * kernel_rows * kernel_columns, rows * width


def _by_group(weights: Array, geometry: Geometry) -> Array:
    """Weights as (G, K/G, C/G*R*S)."""
    return weights.reshape(geometry.groups, geometry.maps // geometry.groups, -1)


def _grouped(values: Array, geometry: Geometry) -> Array:
    """Columns (N, C*R*S, P*Q) or outputs (N, K, P, Q) as (N, G, .../G, P*Q)."""
    rows, width = geometry.out
    return values.reshape(geometry.batch, geometry.groups, -1, rows * width)
