"""Which part of a parameter a rank holds."""

from dataclasses import dataclass
from math import prod

from torch import Tensor

from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import Layout, everywhere, sizes, slices


@dataclass(frozen=True)
class Part:
    """How one parameter or buffer is divided.

    Attributes:
        shape: of the whole.
        layout: of the whole seen with more dims: the last dim of `shape` may stand for several
            dims of the layout, as the input features of a linear layer stand for (C, H, W).
        summed: axes along which ranks' gradients are summands; along the other axes that divide
            nothing they are equal.
    """

    shape: tuple[int, ...]
    layout: Layout
    summed: frozenset[str] = frozenset()

    def local_shape(self, rank: int) -> tuple[int, ...]:
        """Shape of what a rank holds: as many dims as the whole has."""
        if not self.shape:
            return ()
        lengths, dims = sizes(self.layout.box(rank)), len(self.shape)
        return (*lengths[: dims - 1], prod(lengths[dims - 1 :]))

    def cut(self, value: Tensor, rank: int) -> Tensor:
        """What a rank holds of the whole `value`, as a copy."""
        if not self.shape:
            return value.clone()
        view = value.reshape(self.layout.shape)
        box = self.layout.box(rank)
        held = view[slices(box, tuple((0, length) for length in self.layout.shape))]
        return held.reshape(self.local_shape(rank)).clone()


def undivided(mesh: Mesh, shape: tuple[int, ...]) -> Part:
    """A part that is the whole, on every rank."""
    return Part(shape, everywhere(mesh, shape))
