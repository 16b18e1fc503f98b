"""Which server owns what: the network's state cut into contiguous slices of about equal bytes.

Parameters, floating-point buffers and integer buffers are laid end to end (see
`sixfold.training.step.flat`); server i owns the elements from cut i to cut i + 1:

    [ parameters                      | buffers | counters ]
    |----- server 0 -----|----- server 1 -----|- server 2 -|
"""

from dataclasses import dataclass
from itertools import pairwise

ALIGNMENT = 64
"""Cuts lie at multiples of so many elements, so that no server's kernels work on odd tails."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What one server owns, as ranges of the flat vectors."""

    parameters: tuple[int, int]  # first and one-past-last element
    buffers: tuple[int, int]
    counters: tuple[int, int]

    @property
    def elements(self) -> int:
        """How many elements it owns."""
        return sum(stop - start for start, stop in (self.parameters, self.buffers, self.counters))


def cut(parameters: int, buffers: int, counters: int, servers: int) -> list[Slice]:
    """Cut the state, of so many elements, into a slice for each of some servers.

    A network smaller than `ALIGNMENT` elements a server leaves some servers nothing.

    >>> [piece.parameters for piece in cut(1000, 10, 0, 2)]
    [(0, 512), (512, 1000)]
    """
    total = parameters + buffers + counters
    cuts = [min(round(i * total / servers / ALIGNMENT) * ALIGNMENT, total) for i in range(servers)]
    cuts.append(total)
    starts = (0, parameters, parameters + buffers)
    lengths = (parameters, buffers, counters)
    slices = []
    for first, last in pairwise(cuts):
        ranges = [
            (min(max(first - start, 0), length), min(max(last - start, 0), length))
            for start, length in zip(starts, lengths, strict=True)
        ]
        slices.append(Slice(parameters=ranges[0], buffers=ranges[1], counters=ranges[2]))
    return slices
