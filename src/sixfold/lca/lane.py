"""A lane: a fixed number of elements that are computed together, each in a slot of its own.

Kernels always see all slots of a lane, empty ones too, so an element's numbers do not depend on
how many others there are; and what a slot computes does not depend on its place or on its
neighbours (`tests/lca/test_lane.py` holds the kernels to that). Hence a batch of B equals B single
runs bit for bit.

One class for each way to compute g = D^T (x - D a):

    residual form   r = x - D a, g = D^T r      two convolutions, 2 K C R S multiply-adds
    Gram form       g = b - (D^T D) a           one, K^2 (2 taps - 1)^2; b = D^T x is kept
    dense           as residual form, with two matrix products; or b - (D^T D) a with one
    local           D_w (C R S, K) for the element in slot w, or D_p for position p
"""

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sixfold.lca.geometry import Geometry
from sixfold.lca.products import convolve, slot_product


class Lane(Protocol):
    """What the dynamics need of a lane.

    Whoever writes to `code`, the activations (W, K, P, Q), changes what `gradient` sees.
    """

    code: Tensor

    def load(self, slot: int, image: Tensor) -> None:
        """Put an image (C, H, W) into a slot; its code is the caller's to set."""
        ...

    def gradient(self) -> Tensor:
        """G = D^T (x - D a) of the present code, (W, K, P, Q).

        Valid until the next call; the caller may overwrite it, but ask for `squares` before.
        """
        ...

    def squares(self) -> Tensor:
        """Terms whose sum over all but dim 0 is |x - D a|^2 at the last `gradient`, (W, ...)."""
        ...


class ResidualLane:
    """Residual form over images sorted by phase, in W = `width` slots.

    Kernels of D^T are `analysis` (K, c, taps, taps), of D `synthesis` (c, K, taps, taps); `grid` is
    (U, V) of the images, `positions` (P, Q) of the code. `halo` and `skip` are zeros around code
    and residual, by axis. `mask` (1, c, U, V) is 1 where a pixel counts, None if all do; `owned`
    are the rows and columns of the grid whose squares are this lane's to count.
    """

    def __init__(
        self,
        width: int,
        *,
        analysis: Tensor,
        synthesis: Tensor,
        grid: tuple[int, int],
        positions: tuple[int, int],
        halo: tuple[int, int],
        skip: tuple[int, int],
        mask: Tensor | None,
        owned: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        self._analysis, self._synthesis, self._mask = analysis, synthesis, mask
        self._owned = owned
        channels, atoms = synthesis.shape[:2]
        # (W, K, P + 2 halo, Q + 2 halo), and the view of the code within it.
        self.padded_code, self.code = _framed(analysis, width, atoms, positions, halo)
        self._padded_residual, self.residual = _framed(analysis, width, channels, grid, skip)
        self._image = analysis.new_zeros(width, channels, *grid)

    def load(self, slot: int, image: Tensor) -> None:
        """Put an image, already sorted by phase (c, U, V), into a slot."""
        self._image[slot].copy_(image)

    def gradient(self) -> Tensor:
        made = convolve(self.padded_code, self._synthesis)
        torch.sub(self._image, made, out=self.residual)
        if self._mask is not None:
            self.residual.mul_(self._mask)
        return convolve(self._padded_residual, self._analysis)

    def squares(self) -> Tensor:
        return self.residual[:, :, self._owned[0], self._owned[1]].square()


class GramLane:
    """Gram form: atoms' products (K, K, 2 taps - 1, 2 taps - 1) are convolved with the code."""

    def __init__(
        self,
        width: int,
        *,
        analysis: Tensor,
        gram: Tensor,
        positions: tuple[int, int],
        skip: tuple[int, int],
    ) -> None:
        self._analysis, self._gram, self._skip = analysis, gram, skip
        halo = gram.shape[2] // 2, gram.shape[3] // 2
        self._padded_code, self.code = _framed(gram, width, gram.shape[0], positions, halo)
        self._drive = torch.zeros_like(self.code)
        self._energy = gram.new_zeros(width, 1, 1, 1)
        self._last = torch.zeros_like(self.code)

    def load(self, slot: int, image: Tensor) -> None:
        """Put an image, already sorted by phase (c, U, V), into a slot."""
        self._drive[slot] = functional.conv2d(image[None], self._analysis, padding=self._skip)[0]
        self._energy[slot] = image.square().sum()

    def gradient(self) -> Tensor:
        torch.sub(self._drive, convolve(self._padded_code, self._gram), out=self._last)
        return self._last

    def squares(self) -> Tensor:
        """See `Lane`; |x - D a|^2 = |x|^2 - <a, b + g>."""
        terms = (self._drive + self._last).mul_(self.code).double()
        width = len(terms)
        return torch.cat([self._energy.double().view(width, 1), -terms.view(width, -1)], 1)


class DenseLane:
    """A fully connected dictionary (K, M), with `gram` (K, K) = D^T D in the Gram form."""

    def __init__(self, width: int, *, dictionary: Tensor, gram: Tensor | None) -> None:
        self._dictionary, self._gram = dictionary, gram
        self._transposed = dictionary.t().contiguous()
        atoms, size = dictionary.shape
        self.code = dictionary.new_zeros(width, atoms, 1, 1)
        self._flat = self.code.view(width, atoms)
        self._image = dictionary.new_zeros(width, size)
        self.residual = torch.zeros_like(self._image)
        self._drive = torch.zeros_like(self._flat)
        self._gradient = torch.zeros_like(self._flat)

    def load(self, slot: int, image: Tensor) -> None:
        """Put an image (C, H, W) into a slot."""
        self._image[slot] = image.reshape(-1)
        if self._gram is not None:
            # All slots: a product of one row alone has other bits.
            slot_product(self._image, self._transposed, self._drive)

    def gradient(self) -> Tensor:
        if self._gram is None:
            slot_product(self._flat, self._dictionary, self.residual)
            torch.sub(self._image, self.residual, out=self.residual)
            slot_product(self.residual, self._transposed, self._gradient)
        else:
            slot_product(self._flat, self._gram, self._gradient)
            torch.sub(self._drive, self._gradient, out=self._gradient)
        return self._gradient.view(self.code.shape)

    def squares(self) -> Tensor:
        if self._gram is not None:
            slot_product(self._flat, self._dictionary, self.residual)
            torch.sub(self._image, self.residual, out=self.residual)
        return self.residual.square()


def _framed(
    like: Tensor, width: int, channels: int, size: tuple[int, int], frame: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Zeros with a frame around them, (W, c, U + 2, V + 2), and the view without the frame."""
    (u, v), (fu, fv) = size, frame
    whole = like.new_zeros(width, channels, u + 2 * fu, v + 2 * fv)
    return whole, whole[:, :, fu : fu + u, fv : fv + v]


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
        return self._residual.square()
