"""Direct convolution: the loop nest itself, with its loops in any order.

A convolution layer is six nested loops, and the batch is a seventh:

    batch    n   image                  chan_n   k   output channel
    chan_n1  c   input channel          row_n    p   output row
    col_n    q   output column          kern_x   r   kernel row
    kern_y   s   kernel column

Every point of the nest is one multiplication and one addition. The three products of training
share the nest; they differ in which of the three arrays is added to:

    forward           y[n,k,p,q]     += w[k,c,r,s] * x[n,c,p+r,q+s]
    input gradient    dx[n,c,p+r,q+s] += w[k,c,r,s] * dy[n,k,p,q]
    weight gradient   dw[k,c,r,s]    += dy[n,k,p,q] * x[n,c,p+r,q+s]

(written for stride 1, no padding, no groups). All 7! orders of the loops visit the same points, so
they give the same sums. What the order changes:

*   The order in which each sum is added, and so its rounding. An element of the result is a sum
    over the loops that do not appear in its index: in the forward product the order of `chan_n1`,
    `kern_x` and `kern_y` among each other decides all bits, and the 720 orders of six loops fall
    into 3! = 6 classes. Likewise `batch`, `row_n` and `col_n` for the weight gradient. An element
    of the input gradient is a sum over `chan_n` and over the pairs (p, r) and (q, s) that meet at
    its pixel.
*   Locality. An array whose index does not change in the innermost loops is loaded once and kept
    in a register; one whose index moves by one element is read by whole cache lines; one that
    jumps by a row or a plane costs a line for each element. `sixfold.studies.convolution.locality`
    counts this for every order.

This module is a reference to study and to test against, not a fast path. Legend as in
`sixfold.studies.convolution.geometry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sixfold.studies.convolution.geometry import Array, Geometry

LOOPS = ("batch", "chan_n", "chan_n1", "row_n", "col_n", "kern_x", "kern_y")
"""The seven loops, outermost first, in the order in which they are usually written."""

Index = NDArray[np.intp]


def extents(geometry: Geometry) -> dict[str, int]:
    """How often each loop runs.

    >>> extents(Geometry.of((10, 3, 32, 32), (32, 3, 5, 5), padding=2))["col_n"]
    32
    """
    rows, columns = geometry.out
    _, group_channels, kernel_rows, kernel_columns = geometry.weight_shape
    return {
        "batch": geometry.batch,
        "chan_n": geometry.maps,
        "chan_n1": group_channels,
        "row_n": rows,
        "col_n": columns,
        "kern_x": kernel_rows,
        "kern_y": kernel_columns,
    }


def forward(
    images: Array,
    weights: Array,
    geometry: Geometry,
    *,
    order: Sequence[str] = LOOPS,
    vectorised: int = 3,
) -> Array:
    """Convolution, by the loop nest in the given order.

    Args:
        images: (N, C, H, W).
        weights: (K, C/G, R, S).
        geometry: sizes, stride, padding, dilation, groups.
        order: the seven loops of `LOOPS`, outermost first; six are enough, `batch` is then the
            outermost.
        vectorised: how many of the innermost loops NumPy runs, 0 to 7. The additions are done in
            the order of the loops whatever it is, so it changes no bit. Index arrays as long as
            the product of those loops are held.

    Returns:
        (N, K, P, Q).

    Raises:
        ValueError: if shapes do not fit the geometry, or `order` is no permutation of the loops.

    >>> x, w = np.arange(16.0).reshape(1, 1, 4, 4), np.ones((1, 1, 3, 3))
    >>> order = ("kern_y", "kern_x", "col_n", "row_n", "chan_n1", "chan_n")
    >>> forward(x, w, Geometry.of(x.shape, w.shape), order=order)
    array([[[[45., 54.],
             [81., 90.]]]])
    """
    geometry.expect(images=images, weights=weights)
    padded, flat_weights = geometry.pad(images).ravel(), weights.ravel()
    outputs = np.zeros(geometry.output_shape, np.result_type(images, weights))
    for point in _points(geometry, order, vectorised):
        values = flat_weights[point.weight] * padded[point.pixel]
        _add(outputs, point.output, values)
    return outputs


def input_gradient(
    weights: Array,
    output_gradient: Array,
    geometry: Geometry,
    *,
    order: Sequence[str] = LOOPS,
    vectorised: int = 3,
) -> Array:
    """Gradient with respect to the images: the adjoint of `forward` in `images`.

    Args:
        weights: (K, C/G, R, S).
        output_gradient: (N, K, P, Q).
        geometry: sizes, stride, padding, dilation, groups.
        order: as for `forward`.
        vectorised: as for `forward`.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: as for `forward`.
    """
    geometry.expect(weights=weights, outputs=output_gradient)
    flat_weights, flat_gradient = weights.ravel(), output_gradient.ravel()
    shape = (geometry.batch, geometry.channels, *geometry.padded)
    gradient = np.zeros(shape, np.result_type(weights, output_gradient))
    for point in _points(geometry, order, vectorised):
        values = flat_weights[point.weight] * flat_gradient[point.output]
        _add(gradient, point.pixel, values)
    return geometry.crop(gradient)


def weight_gradient(
    images: Array,
    output_gradient: Array,
    geometry: Geometry,
    *,
    order: Sequence[str] = LOOPS,
    vectorised: int = 3,
) -> Array:
    """Gradient with respect to the weights: the adjoint of `forward` in `weights`.

    Args:
        images: (N, C, H, W).
        output_gradient: (N, K, P, Q).
        geometry: sizes, stride, padding, dilation, groups.
        order: as for `forward`.
        vectorised: as for `forward`.

    Returns:
        (K, C/G, R, S).

    Raises:
        ValueError: as for `forward`.
    """
    geometry.expect(images=images, outputs=output_gradient)
    padded, flat_gradient = geometry.pad(images).ravel(), output_gradient.ravel()
    gradient = np.zeros(geometry.weight_shape, np.result_type(images, output_gradient))
    for point in _points(geometry, order, vectorised):
        values = flat_gradient[point.output] * padded[point.pixel]
        _add(gradient, point.weight, values)
    return gradient


class _Points:
    """Where the three arrays are touched, in flat indices, by a run of consecutive points."""

    def __init__(self, at: dict[str, Index], geometry: Geometry) -> None:
        maps, channels = geometry.maps, geometry.channels
        _, group_channels, kernel_rows, kernel_columns = geometry.weight_shape
        (rows, columns), (padded_rows, padded_columns) = geometry.out, geometry.padded
        channel = at["chan_n"] // (maps // geometry.groups) * group_channels + at["chan_n1"]
        i = at["row_n"] * geometry.stride[0] + at["kern_x"] * geometry.dilation[0]
        j = at["col_n"] * geometry.stride[1] + at["kern_y"] * geometry.dilation[1]
        self.output = _flat(
            (at["batch"], at["chan_n"], at["row_n"], at["col_n"]), (maps, rows, columns)
        )
        self.weight = _flat(
            (at["chan_n"], at["chan_n1"], at["kern_x"], at["kern_y"]),
            (group_channels, kernel_rows, kernel_columns),
        )
        self.pixel = _flat((at["batch"], channel, i, j), (channels, padded_rows, padded_columns))


def _points(geometry: Geometry, order: Sequence[str], vectorised: int) -> Iterator[_Points]:
    """The points of the nest in order, a run of the innermost `vectorised` loops at a time."""
    loops = complete(order)
    if not 0 <= vectorised <= len(loops):
        raise ValueError(f"vectorised={vectorised} must be from 0 to {len(loops)}")
    extent = extents(geometry)
    outer, inner = loops[: len(loops) - vectorised], loops[len(loops) - vectorised :]
    # Each inner loop lies along a dim of its own, in order, so that C order is the nest's order.
    ranges = np.ix_(*(np.arange(extent[loop]) for loop in inner))
    fixed = dict(zip(inner, ranges, strict=True))
    for point in product(*(range(extent[loop]) for loop in outer)):
        here = {loop: np.asarray(value) for loop, value in zip(outer, point, strict=True)}
        yield _Points({**fixed, **here}, geometry)


def complete(order: Sequence[str]) -> tuple[str, ...]:
    """An order of all seven loops: `batch` comes outermost if it is not named.

    Raises:
        ValueError: if `order` is no permutation of the loops.

    >>> complete(("kern_x", "kern_y", "row_n", "col_n", "chan_n", "chan_n1"))[:2]
    ('batch', 'kern_x')
    """
    loops = tuple(order) if "batch" in order else ("batch", *order)
    if sorted(loops) != sorted(LOOPS):
        raise ValueError(f"order={tuple(order)} must name each of {', '.join(LOOPS)} once")
    return loops


def _flat(index: tuple[Index, Index, Index, Index], sizes: tuple[int, int, int]) -> Index:
    """Index into a flattened array, of which `sizes` are all dims but the first."""
    flat, rest = index[0], index[1:]
    for size, position in zip(sizes, rest, strict=True):
        flat = flat * size + position
    return flat


def _add(target: Array, index: Index, values: Array) -> None:
    """Add values one by one, in C order, to elements of `target` that may repeat."""
    np.add.at(target.reshape(-1), np.broadcast_to(index, values.shape).ravel(), values.ravel())
