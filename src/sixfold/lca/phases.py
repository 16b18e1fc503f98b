"""Strided convolution without strides: pixels sorted by their phase.

With stride s, pixel y of the padded image (the *canvas*) belongs to phase y mod s of place
y div s. Sorted by phase, C channels become C s s channels on a grid as coarse as the positions;
a strided convolution becomes a plain one, and so does its transpose, which libraries compute
several times slower (64 atoms of 9x9x3 at stride 2 on 32x32, one core with AVX-512, torch 2.13:
`conv_transpose2d` 0.37 ms an image, the plain convolution 0.08 ms). The images are kept this way
for as long as a code is computed.

The grid may leave out `skip` places on each side where the canvas holds no pixel that counts.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sixfold.lca.geometry import Geometry


class Phases:
    """How the images of a geometry are laid out by phase."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        # Places of the canvas, on each side, that are left out of the grid; (U, V); C s s.
        self.skip = (self._skip(0), self._skip(1))
        self.grid = (self._places(0) - 2 * self.skip[0], self._places(1) - 2 * self.skip[1])
        self.channels = geometry.channels * geometry.stride[0] * geometry.stride[1]

    def _places(self, axis: int) -> int:
        """Places of the canvas along an axis: as far as the last position reaches."""
        return self.geometry.positions[axis] + self.geometry.taps[axis] - 1

    def _skip(self, axis: int) -> int:
        geometry = self.geometry
        if geometry.boundary == "zero":
            return 0
        size, pad = geometry.image[1 + axis], geometry.padding[axis]
        stride, places = geometry.stride[axis], self._places(axis)
        before = pad // stride
        after = max(places - -(-(pad + size) // stride), 0)
        return min(before, after, geometry.taps[axis] - 1)

    @property
    def halo(self) -> tuple[int, int]:
        """Zeros around the code with which a plain convolution gives the grid, by axis."""
        taps = self.geometry.taps
        return taps[0] - 1 - self.skip[0], taps[1] - 1 - self.skip[1]

    def sort(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) by phase, (n, C s s, U, V); zeros where the canvas has no pixel."""
        geometry = self.geometry
        (sh, sw), (ph, pw), (qh, qw) = geometry.stride, geometry.padding, self.skip
        top, left = ph - qh * sh, pw - qw * sw
        rows, columns = self.grid[0] * sh, self.grid[1] * sw
        images = images[:, :, : geometry.reach[0], : geometry.reach[1]]
        n, c, h, w = images.shape
        canvas = functional.pad(images, (left, columns - left - w, top, rows - top - h))
        parts = canvas.view(n, c, self.grid[0], sh, self.grid[1], sw)
        return parts.permute(0, 1, 3, 5, 2, 4).reshape(n, self.channels, *self.grid)

    def unsort(self, grid: Tensor) -> Tensor:
        """The images again, (n, C, H, W); pixels that no atom reaches are zero."""
        geometry = self.geometry
        (sh, sw), (ph, pw), (qh, qw) = geometry.stride, geometry.padding, self.skip
        n, c = grid.shape[0], geometry.channels
        parts = grid.view(n, c, sh, sw, *self.grid).permute(0, 1, 4, 2, 5, 3)
        canvas = parts.reshape(n, c, self.grid[0] * sh, self.grid[1] * sw)
        top, left = ph - qh * sh, pw - qw * sw
        (h, w), (rows, columns) = geometry.reach, canvas.shape[2:]
        seen = functional.pad(canvas, (-left, w + left - columns, -top, h + top - rows))
        return functional.pad(seen, (0, geometry.width - w, 0, geometry.height - h))

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """1 where the grid holds a pixel that counts, (1, C s s, U, V); None if everywhere."""
        if self.geometry.boundary == "zero":
            return None
        found = self.sort(torch.ones(1, *self.geometry.image, dtype=dtype))
        return None if bool((found == 1).all()) else found

    def analysis_kernels(self, dictionary: Tensor) -> Tensor:
        """Kernels (K, C s s, taps, taps) of the convolution for D^T r, from atoms (K, C, R, S)."""
        (th, tw), (sh, sw) = self.geometry.taps, self.geometry.stride
        k, c, r, s = dictionary.shape
        whole = functional.pad(dictionary, (0, tw * sw - s, 0, th * sh - r))
        parts = whole.view(k, c, th, sh, tw, sw).permute(0, 1, 3, 5, 2, 4)
        return parts.reshape(k, self.channels, th, tw).contiguous()

    def synthesis_kernels(self, dictionary: Tensor) -> Tensor:
        """Kernels of the convolution that computes D a, (C s s, K, taps, taps)."""
        return self.analysis_kernels(dictionary).transpose(0, 1).flip(2, 3).contiguous()

    def gram_kernels(self, dictionary: Tensor) -> Tensor:
        """Kernels (K, K, 2 taps - 1, 2 taps - 1) for D^T D a, if `Geometry.gram_is_exact`."""
        kernels = self.analysis_kernels(dictionary)
        th, tw = self.geometry.taps
        padded = functional.pad(kernels, (tw - 1, tw - 1, th - 1, th - 1))
        return functional.conv2d(padded, kernels)
