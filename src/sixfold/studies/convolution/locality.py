"""What an order of the loops means for memory: strides and working sets of the three arrays.

Two numbers tell most of an order's speed. The *step* is how far, in elements, an array's index
moves when a loop advances by one: 0 keeps the element in a register, 1 reads whole cache lines,
anything else wastes most of each line. The *footprint* is how many different elements of an array
the innermost loops touch together: what must fit into a cache for the next round to find it there.

Arrays lie in C order: images (N, C, H, W) already padded, weights (K, C/G, R, S), outputs
(N, K, P, Q). Legend as in `sixfold.studies.convolution.geometry`.
"""

from collections.abc import Sequence
from math import prod

from sixfold.studies.convolution.direct import LOOPS, complete, extents
from sixfold.studies.convolution.geometry import Geometry

ARRAYS = ("images", "weights", "outputs")


def steps(geometry: Geometry) -> dict[str, dict[str, int]]:
    """Loop -> array -> how far its index moves when the loop advances by one, in elements.

    With groups, the channel that `chan_n` reads is taken to stay the same (it moves only from one
    group to the next).

    >>> g = Geometry.of((10, 3, 32, 32), (32, 3, 5, 5), padding=2)
    >>> steps(g)["col_n"], steps(g)["chan_n1"]
    ({'images': 1, 'weights': 0, 'outputs': 1}, {'images': 1296, 'weights': 25, 'outputs': 0})
    """
    (padded_rows, width), (rows, columns) = geometry.padded, geometry.out
    maps, group_channels, kernel_rows, kernel_columns = geometry.weight_shape
    plane, taps = padded_rows * width, kernel_rows * kernel_columns
    images = {
        "batch": geometry.channels * plane,
        "chan_n1": plane,
        "row_n": geometry.stride[0] * width,
        "col_n": geometry.stride[1],
        "kern_x": geometry.dilation[0] * width,
        "kern_y": geometry.dilation[1],
    }
    weights = {
        "chan_n": group_channels * taps,
        "chan_n1": taps,
        "kern_x": kernel_columns,
        "kern_y": 1,
    }
    outputs = {
        "batch": maps * rows * columns,
        "chan_n": rows * columns,
        "row_n": columns,
        "col_n": 1,
    }
    return {
        loop: {
            name: moves.get(loop, 0)
            for name, moves in zip(ARRAYS, (images, weights, outputs), strict=True)
        }
        for loop in LOOPS
    }


def footprint(order: Sequence[str], depth: int, geometry: Geometry) -> dict[str, int]:
    """How many different elements of each array the innermost `depth` loops touch together.

    `order` is as for `sixfold.studies.convolution.direct.forward`.

    >>> g = Geometry.of((10, 3, 32, 32), (32, 3, 5, 5), padding=2)
    >>> footprint(("chan_n", "row_n", "col_n", "chan_n1", "kern_x", "kern_y"), 4, g)
    {'images': 540, 'weights': 75, 'outputs': 32}
    """
    loops = complete(order)
    inner = loops[len(loops) - depth :]
    runs = {loop: count if loop in inner else 1 for loop, count in extents(geometry).items()}
    rows = _distinct(runs["row_n"], runs["kern_x"], geometry.stride[0], geometry.dilation[0])
    columns = _distinct(runs["col_n"], runs["kern_y"], geometry.stride[1], geometry.dilation[1])
    groups = geometry.groups if runs["chan_n"] > 1 else 1
    weights = ("chan_n", "chan_n1", "kern_x", "kern_y")
    outputs = ("batch", "chan_n", "row_n", "col_n")
    return {
        "images": runs["batch"] * runs["chan_n1"] * groups * rows * columns,
        "weights": prod(runs[loop] for loop in weights),
        "outputs": prod(runs[loop] for loop in outputs),
    }


def _distinct(outputs: int, taps: int, stride: int, dilation: int) -> int:
    """How many different positions output * stride + tap * dilation takes."""
    return len({o * stride + t * dilation for o in range(outputs) for t in range(taps)})
