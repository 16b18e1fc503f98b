"""Depthwise-separable convolution.

A. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
applications", 2017, section 3.1. A convolution is split in two: each channel is filtered by a
kernel of its own (depthwise), and a 1x1 convolution then mixes the channels (pointwise):

    z[n, c, p, q] = sum over r, s of   d[c, r, s] * x[n, c, p*stride - padding + r*dilation, ...]
    y[n, k, p, q] = sum over c of      m[k, c] * z[n, c, p, q]

The loop over input channels has gone from the first, and those over the kernel from the second, so
a position costs C R S + C K multiply-adds instead of C R S K: 1/K + 1/(R S) of them.

The geometry given to every function here is the one of the depthwise step: groups = maps =
channels. Legend as in `sixfold.studies.convolution.geometry`.
"""

import numpy as np

from sixfold.studies.convolution.geometry import Array, Geometry


def forward(
    images: Array, depthwise: Array, pointwise: Array, geometry: Geometry
) -> tuple[Array, Array]:
    """Outputs (N, K, P, Q), and what lies between the steps (N, C, P, Q), which `gradients` needs.

    Images are (N, C, H, W), `depthwise` (C, 1, R, S), `pointwise` (K, C). A ValueError if shapes do
    not fit the geometry, or it is not depthwise.

    >>> x, d, m = np.ones((1, 2, 3, 3)), np.ones((2, 1, 3, 3)), np.array([[1.0, 10.0]])
    >>> forward(x, d, m, Geometry.of(x.shape, d.shape, groups=2))[0]
    array([[[[99.]]]])
    """
    _expect_depthwise(pointwise, geometry)
    geometry.expect(images=images, weights=depthwise)
    padded = geometry.pad(images)
    between = np.zeros(geometry.output_shape, np.result_type(images, depthwise))
    for tap, seen in geometry.taps():
        between += depthwise[:, 0, *tap, None, None] * padded[:, :, *seen]
    return np.einsum("kc,ncpq->nkpq", pointwise, between), between


def gradients(
    images: Array,
    depthwise: Array,
    pointwise: Array,
    between: Array,
    output_gradient: Array,
    geometry: Geometry,
) -> tuple[Array, Array, Array]:
    """Gradients of `images`, `depthwise` and `pointwise`; `between` is from `forward`."""
    _expect_depthwise(pointwise, geometry)
    geometry.expect(images=images, weights=depthwise, outputs=between)
    pointwise_gradient = np.einsum("nkpq,ncpq->kc", output_gradient, between)
    between_gradient = np.einsum("kc,nkpq->ncpq", pointwise, output_gradient)
    padded = geometry.pad(images)
    padded_gradient = np.zeros(padded.shape, between_gradient.dtype)
    depthwise_gradient = np.zeros(depthwise.shape, between_gradient.dtype)
    for tap, seen in geometry.taps():
        weight = depthwise[:, 0, *tap, None, None]
        padded_gradient[:, :, *seen] += weight * between_gradient
        products = padded[:, :, *seen] * between_gradient
        depthwise_gradient[:, 0, *tap] = products.sum(axis=(0, 2, 3))
    return geometry.crop(padded_gradient), depthwise_gradient, pointwise_gradient


def multiply_adds(geometry: Geometry, maps: int) -> tuple[int, int]:
    """Multiply-adds of the separable convolution, and of a full one of the same sizes.

    >>> g = Geometry.of((1, 512, 14, 14), (512, 1, 3, 3), padding=1, groups=512)
    >>> separable, full = multiply_adds(g, 512)
    >>> round(separable / full, 4) == round(1 / 512 + 1 / 9, 4)
    True
    """
    positions = geometry.batch * geometry.out[0] * geometry.out[1]
    taps = geometry.kernel[0] * geometry.kernel[1]
    channels = geometry.channels
    return positions * channels * (taps + maps), positions * channels * taps * maps


def _expect_depthwise(pointwise: Array, geometry: Geometry) -> None:
    """Check that there is one kernel for each channel, and that the pointwise weights fit."""
    if not geometry.channels == geometry.maps == geometry.groups:
        raise ValueError(
            f"a depthwise step has as many groups and maps as channels, not {geometry.groups} "
            f"groups and {geometry.maps} maps for {geometry.channels} channels"
        )
    if pointwise.ndim != 2 or pointwise.shape[1] != geometry.channels:
        raise ValueError(f"pointwise weights are {pointwise.shape}, not (K, {geometry.channels})")
