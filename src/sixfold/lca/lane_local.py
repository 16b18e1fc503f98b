"""Lanes whose dictionary is not the same everywhere: one per element, or one per position.

The code of position p is a column a_p, its patch of the image a column x_p of C R S numbers:

    one per element    D_w (C R S, K) for the element in slot w, at all its positions
    one per position   D_p (C R S, K) for position p, for all elements; nothing is shared

Both are batches of matrix products between codes and patches; patches are cut out of the image
and added up in it by `unfold` and `fold`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sixfold.lca.geometry import Geometry
from sixfold.lca.products import slot_product


class LocalLane:
    """Residual form with dictionaries (P Q, K, C, R, S) of the positions, or with one per element.

    Elements have their own, which come with `load_dictionary`, where `per_position` is None.
    """

    def __init__(
        self, width: int, *, geometry: Geometry, per_position: Tensor | None, dtype: torch.dtype
    ) -> None:
        self._geometry = geometry
        (p, q), k, reach = geometry.positions, geometry.atoms, geometry.reach
        (ph, pw), (c, h, w) = geometry.padding, geometry.image
        self.code = torch.zeros(width, k, p, q, dtype=dtype)
        self._canvas = (h + 2 * ph, w + 2 * pw)
        self._image = torch.zeros(width, c, *self._canvas, dtype=dtype)
        self._residual = torch.zeros_like(self._image)
        self._of_positions = per_position is not None
        if per_position is None:
            self._dictionary = torch.zeros(width, k, c * math.prod(geometry.kernel), dtype=dtype)
        else:
            self._dictionary = per_position.reshape(p * q, k, -1)
        self._inside = torch.zeros(1, 1, *self._canvas, dtype=dtype)
        self._inside[:, :, ph : ph + reach[0], pw : pw + reach[1]] = 1
        self._mask = self._inside if geometry.boundary == "free" and (ph or pw) else None

    def load(self, slot: int, image: Tensor) -> None:
        """Put an image (C, H, W) into a slot."""
        (ph, pw), (_, h, w) = self._geometry.padding, self._geometry.image
        self._image[slot, :, ph : ph + h, pw : pw + w] = image
        self._image[slot].mul_(self._inside[0])

    def load_dictionary(self, slot: int, dictionary: Tensor) -> None:
        """Give the element in a slot its own dictionary, (K, C, R, S)."""
        self._dictionary[slot] = dictionary.flatten(1)

    def gradient(self) -> Tensor:
        """See `Lane`."""
        torch.sub(self._image, self._fold(self._patches()), out=self._residual)
        if self._mask is not None:
            self._residual.mul_(self._mask)
        columns = functional.unfold(
            self._residual, self._geometry.kernel, stride=self._geometry.stride
        )  # (W, M, P Q)
        if self._of_positions:
            found = self._by_position(columns, self._dictionary.transpose(1, 2))
        else:
            found = torch.bmm(self._dictionary, columns)
        return found.reshape(self.code.shape)

    def _patches(self) -> Tensor:
        """D a of every position by itself, (W, M, P Q)."""
        flat = self.code.flatten(2)
        if self._of_positions:
            return self._by_position(flat, self._dictionary)
        return torch.bmm(self._dictionary.transpose(1, 2), flat)

    @staticmethod
    def _by_position(columns: Tensor, right: Tensor) -> Tensor:
        """Columns (W, N, P Q) times the matrix of each position (P Q, N, M): (W, M, P Q)."""
        left = columns.permute(2, 0, 1).contiguous()
        out = left.new_empty(len(left), left.shape[1], right.shape[2])
        return slot_product(left, right, out).permute(1, 2, 0)

    def _fold(self, patches: Tensor) -> Tensor:
        return functional.fold(
            patches, self._canvas, self._geometry.kernel, stride=self._geometry.stride
        )

    def own_pixels(self) -> Tensor:
        """The residual of the last `gradient` without the canvas around it, (W, C, H, W)."""
        (ph, pw), (_, h, w) = self._geometry.padding, self._geometry.image
        return self._residual[:, :, ph : ph + h, pw : pw + w]

    def squares(self) -> Tensor:
        """See `Lane`."""
        return self._residual.square()
