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
    """Convolution, (N, K, P, Q), by the loop nest in the given order.

    Args:
        images: (N, C, H, W).
        weights: (K, C/G, R, S).
        geometry: a ValueError if shapes do not fit it.
        order: the seven loops of `LOOPS`, outermost first; six are enough, `batch` is then the
            outermost. A ValueError if it is no permutation of them.
        vectorised: how many of the innermost loops NumPy runs, 0 to 7. The additions are done in
            the order of the loops whatever it is, so it changes no bit. Index arrays as long as
            the product of those loops are held.

    >>> x, w = np.arange(16.0).reshape(1, 1, 4, 4), np.ones((1, 1, 3, 3))
    >>> order = ("kern_y", "kern_x", "col_n", "row_n", "chan_n1", "chan_n")
    >>> forward(x, w, Geometry.of(x.shape, w.shape), order=order)
    array([[[[45., 54.],
             [81., 90.]]]])
    """
    geometry.expect(images=images, weights=weights)
    arrays = {"weights": weights, "images": geometry.pad(images)}
    return _added_up(arrays, "outputs", geometry.output_shape, geometry, order, vectorised)


def input_gradient(
    weights: Array,
    output_gradient: Array,
    geometry: Geometry,
    *,
    order: Sequence[str] = LOOPS,
    vectorised: int = 3,
) -> Array:
    """Gradient with respect to the images: the adjoint of `forward` in `images`."""
    geometry.expect(weights=weights, outputs=output_gradient)
    arrays = {"weights": weights, "outputs": output_gradient}
    shape = (geometry.batch, geometry.channels, *geometry.padded)
    return geometry.crop(_added_up(arrays, "images", shape, geometry, order, vectorised))


def weight_gradient(
    images: Array,
    output_gradient: Array,
    geometry: Geometry,
    *,
    order: Sequence[str] = LOOPS,
    vectorised: int = 3,
) -> Array:
    """Gradient with respect to the weights: the adjoint of `forward` in `weights`."""
    geometry.expect(images=images, outputs=output_gradient)
    arrays = {"outputs": output_gradient, "images": geometry.pad(images)}
    return _added_up(arrays, "weights", geometry.weight_shape, geometry, order, vectorised)


def _added_up(
    arrays: dict[str, Array],
    target: str,
    shape: tuple[int, ...],
    geometry: Geometry,
    order: Sequence[str],
    vectorised: int,
) -> Array:
    """Products of two arrays, added up in the third, point by point in the order of the loops."""
    (one, first), (two, second) = ((name, array.ravel()) for name, array in arrays.items())
    total = np.zeros(shape, np.result_type(first, second))
    for at in _points(geometry, order, vectorised):
        values = first[at[one]] * second[at[two]]
        # One by one, in C order: elements may repeat.
        places = np.broadcast_to(at[target], values.shape)
        np.add.at(total.reshape(-1), places.ravel(), values.ravel())
    return total


def _points(
    geometry: Geometry, order: Sequence[str], vectorised: int
) -> Iterator[dict[str, Index]]:
    """Flat indices into the arrays, for a run of the innermost `vectorised` loops at a time."""
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
        yield _touched({**fixed, **here}, geometry)


def _touched(at: dict[str, Index], geometry: Geometry) -> dict[str, Index]:
    maps, group_channels, *kernel = geometry.weight_shape
    channel = at["chan_n"] // (maps // geometry.groups) * group_channels + at["chan_n1"]
    i = at["row_n"] * geometry.stride[0] + at["kern_x"] * geometry.dilation[0]
    j = at["col_n"] * geometry.stride[1] + at["kern_y"] * geometry.dilation[1]
    output = (at["batch"], at["chan_n"], at["row_n"], at["col_n"])
    weight = (at["chan_n"], at["chan_n1"], at["kern_x"], at["kern_y"])
    return {
        "outputs": _flat(output, (maps, *geometry.out)),
        "weights": _flat(weight, (group_channels, *kernel)),
        "images": _flat((at["batch"], channel, i, j), (geometry.channels, *geometry.padded)),
    }


def complete(order: Sequence[str]) -> tuple[str, ...]:
    """An order of all seven loops, `batch` outermost if not named; a ValueError if one is amiss.

    >>> complete(("kern_x", "kern_y", "row_n", "col_n", "chan_n", "chan_n1"))[:2]
    ('batch', 'kern_x')
    """
    loops = tuple(order) if "batch" in order else ("batch", *order)
    if sorted(loops) != sorted(LOOPS):
        raise ValueError(f"order={tuple(order)} must name each of {', '.join(LOOPS)} once")
    return loops


def _flat(index: tuple[Index, ...], sizes: tuple[int, ...]) -> Index:
    """Index into a flattened array, of which `sizes` are all dims but the first."""
    flat, *rest = index
    for size, position in zip(sizes, rest, strict=True):
        flat = flat * size + position
    return flat
