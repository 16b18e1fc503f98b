"""The seven loops written out: the plainest reference, for tiny sizes only.

One nest does all three products of a layer. Everything else in this package is tested, directly or
by way of `sixfold.studies.convolution.direct`, against these few lines. Legend as in
`sixfold.studies.convolution.geometry`.
"""

from __future__ import annotations

import numpy as np

from sixfold.studies.convolution.geometry import Array, Geometry


def convolution(
    images: Array, weights: Array, output_gradient: Array, geometry: Geometry
) -> tuple[Array, Array, Array]:
    """Forward and backward of a convolution, by seven loops.

    Args:
        images: (N, C, H, W).
        weights: (K, C/G, R, S).
        output_gradient: (N, K, P, Q).
        geometry: sizes, stride, padding, dilation, groups.

    Returns:
        Outputs (N, K, P, Q), gradient of the images and gradient of the weights.

    Raises:
        ValueError: if shapes do not fit the geometry.
    """
    geometry.expect(images=images, weights=weights, outputs=output_gradient)
    _, group_channels, kernel_rows, kernel_columns = geometry.weight_shape
    rows, columns = geometry.out
    x = geometry.pad(images)
    y, dx, dw = np.zeros_like(output_gradient), np.zeros_like(x), np.zeros_like(weights)
    for n in range(geometry.batch):
        for k in range(geometry.maps):
            first = k // (geometry.maps // geometry.groups) * group_channels
            for c in range(group_channels):
                for p in range(rows):
                    for q in range(columns):
                        for r in range(kernel_rows):
                            for s in range(kernel_columns):
                                i = p * geometry.stride[0] + r * geometry.dilation[0]
                                j = q * geometry.stride[1] + s * geometry.dilation[1]
                                y[n, k, p, q] += weights[k, c, r, s] * x[n, first + c, i, j]
                                dx[n, first + c, i, j] += (
                                    weights[k, c, r, s] * output_gradient[n, k, p, q]
                                )
                                dw[k, c, r, s] += (
                                    output_gradient[n, k, p, q] * x[n, first + c, i, j]
                                )
    return y, geometry.crop(dx), dw
