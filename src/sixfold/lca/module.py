"""LCA as a network's layer: images in, codes out."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.errors import UserError, raise_problems
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.dictionary import normalise, random_atoms
from sixfold.lca.geometry import Geometry
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.solver import Solution, Solver

Size = int | tuple[int, int]


class LCA(nn.Module):
    """Codes of images, or of one-dimensional signals, in a dictionary (K, C, R, S), a parameter.

    The code is found without a gradient; a loss may be differentiated with respect to the
    dictionary through `reconstruct`, which is how dictionaries are learned (the code is held
    still, as in the update rule of `sixfold.lca.learning`).

    Args:
        channels: C, of the input.
        atoms: K.
        kernel: rows and columns of an atom; one number for both, or for the length of an atom
            of one-dimensional signals.
        stride: from one position to the next.
        padding: beyond the image; ``half`` for kernel // 2.
        boundary: `free` or `zero`, see `Geometry`.
        signal_dims: 2 for images (n, C, H, W), 1 for signals (n, C, L).
        seed: of the first atoms.
        dynamics: any field of `DynamicsConfig`, such as ``lambda_=0.1``.

    Raises:
        UserError: if the settings do not fit.

    >>> layer = LCA(channels=1, atoms=6, kernel=8, stride=2, signal_dims=1, lambda_=0.1)
    >>> signals = torch.randn(2, 1, 30, generator=torch.Generator().manual_seed(0))
    >>> codes = layer(signals)
    >>> codes.shape, layer.reconstruct(codes, signals.shape[2:]).shape
    (torch.Size([2, 6, 12]), torch.Size([2, 1, 30]))
    """

    def __init__(
        self,
        *,
        channels: int,
        atoms: int,
        kernel: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        boundary: str = "free",
        signal_dims: int = 2,
        seed: int = 0,
        **dynamics: Any,
    ) -> None:
        super().__init__()
        if signal_dims not in (1, 2):
            raise UserError(f"signal_dims {signal_dims}: must be 1 or 2")
        self.dynamics = DynamicsConfig(**dynamics)
        raise_problems(self.dynamics.problems())
        self.channels, self.boundary, self.signal_dims = channels, boundary, signal_dims
        self.kernel = self._pair(kernel, of_one=1)
        self.stride = self._pair(stride, of_one=1)
        if padding == "half":
            padding = self.kernel[0] // 2, self.kernel[1] // 2
        if isinstance(padding, str):
            raise UserError(f"padding {padding!r}: give numbers or 'half'")
        self.padding = self._pair(padding, of_one=0)
        height, width = self.kernel
        smallest = Geometry(
            channels=channels, height=height, width=width, atoms=atoms, kernel=self.kernel
        )
        self.dictionary = nn.Parameter(random_atoms(smallest, seed, torch.float32))

    def _pair(self, value: Size, of_one: int) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        return (value, value) if self.signal_dims == 2 else (of_one, value)

    def geometry(self, size: tuple[int, ...]) -> Geometry:
        """The sizes for images of `size`: (H, W), or (L,)."""
        height, width = size if self.signal_dims == 2 else (1, *size)
        return Geometry(
            channels=self.channels,
            height=height,
            width=width,
            atoms=len(self.dictionary),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            boundary=self.boundary,
        )

    def solve(self, images: Tensor, start: Tensor | None = None, **changes: Any) -> Solution:
        """Codes with all that is known of them.

        Images are (n, C, H, W) or (n, C, L), `start` has the shape of the result, `changes` are
        other values for fields of `DynamicsConfig`.
        """
        geometry = self.geometry(tuple(images.shape[2:]))
        interaction = LateralInhibition(self.dictionary.detach(), geometry, form=self.dynamics.form)
        solver = Solver(interaction, dataclasses.replace(self.dynamics, **changes))
        shape = (len(images), geometry.atoms, *geometry.positions)
        warm = None if start is None else list(start.detach().view(shape))
        flat = images.detach().to(self.dictionary.dtype).view(-1, *geometry.image)
        return solver.solve(flat, start=warm)

    def forward(self, images: Tensor, start: Tensor | None = None) -> Tensor:
        """Codes, (n, K, P, Q) or (n, K, P); see `solve`."""
        codes = self.solve(images, start).codes
        return codes if self.signal_dims == 2 else codes[:, :, 0]

    def reconstruct(self, codes: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
        """D a of codes (n, K, P, Q) or (n, K, P), for images of `size`; differentiable in both."""
        geometry = self.geometry(tuple(size))
        codes = codes.view(len(codes), geometry.atoms, *geometry.positions)
        made = functional.conv_transpose2d(codes, self.dictionary, stride=self.stride)
        (ph, pw), (_, h, w) = self.padding, geometry.image
        made = made[:, :, ph : ph + h, pw : pw + w]
        made = functional.pad(made, (0, w - made.shape[3], 0, h - made.shape[2]))
        return made if self.signal_dims == 2 else made[:, :, 0]

    def normalise_(self) -> None:
        """Bring the atoms to norm 1 again, after an optimizer has changed them."""
        with torch.no_grad():
            self.dictionary.copy_(normalise(self.dictionary))
