"""Plans of exchanges: who owns what intersects what whom needs.

Every exchange of a divided network is one of two transposes of the same plan. A tensor is *owned*
in some layout; every rank *needs* a box of it, and boxes may overlap (halos) or coincide (copies).

    gather    owned -> needed: every rank fetches its box from those who own parts of it
    add       needed -> owned: every rank adds up, in the order of the ranks, what others hold of
              its own box

Forward passes gather what the next layer needs, and their backward passes add up its gradient;
where a layer gives partial sums, the forward pass adds them and the backward pass gathers.

Copies need a rule. Along an axis on which the owners hold copies, a rank gathers from those with
its own place on that axis. Along an axis on which the needs are *duplicated*, where ranks compute
the same thing from the same box, only the one at the owner's own place counts in a sum; along
all other axes needs differ, or are summands, and all count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import Box, Layout, common

Pieces = tuple[tuple[int, Box], ...]
"""(rank, box): what is exchanged with whom, in the order of the ranks."""


@dataclass(frozen=True)
class Move:
    """One rank's part in an exchange.

    Attributes:
        own: what this rank owns.
        need: what it needs, within the tensor's bounds.
        takes: gather: what it gets from whom; disjoint, together `need`.
        gives: gather: what it hands to whom.
        collects: add: boxes of `own` that it adds up, and who holds the summand.
        contributes: add: boxes of `need` that it hands to whom.
    """

    own: Box
    need: Box
    takes: Pieces
    gives: Pieces
    collects: Pieces
    contributes: Pieces

    @cached_property
    def _hash(self) -> int:
        return hash((self.own, self.need, self.takes, self.gives, self.collects, self.contributes))

    def __hash__(self) -> int:
        """Made once: what follows from a move is looked up at every exchange."""
        return self._hash

    def is_trivial(self, rank: int) -> bool:
        """Whether the rank needs exactly what it owns, and exchanges nothing either way."""
        peers = {peer for peer, _ in self.takes + self.gives + self.collects + self.contributes}
        return self.own == self.need and peers <= {rank}


def plan(
    rank: int,
    owned: Layout,
    needs: Sequence[Box],
    duplicated: Iterable[str] = (),
    needed_by: Mesh | None = None,
) -> Move:
    """Plan an exchange.

    Args:
        rank: whose part is planned.
        owned: the layout in which the tensor is owned.
        needs: box of every rank.
        duplicated: axes along which ranks compute the same thing from the same box.
        needed_by: the mesh that has these axes, if it is not that of `owned`.

    Raises:
        ValueError: if needs differ along a duplicated axis.
    """
    mesh, boxes = needed_by or owned.mesh, owned.boxes()
    copied, same = tuple(sorted(owned.copied)), tuple(sorted(duplicated))
    for other in mesh.group(rank, same):
        if needs[other] != needs[rank]:
            raise ValueError(f"needs of ranks {rank} and {other} differ along {same}")

    def pairs(owner: bool, mesh: Mesh, axes: tuple[str, ...]) -> Pieces:
        """Boxes common to this rank and the others who stand at its place along `axes`."""
        mine = boxes[rank] if owner else needs[rank]
        theirs = needs if owner else boxes
        place = mesh.place(rank, axes)
        found = []
        for other in range(mesh.size):
            if mesh.place(other, axes) == place:
                box = common(mine, theirs[other])
                if box is not None:
                    found.append((other, box))
        return tuple(found)

    return Move(
        own=boxes[rank],
        need=needs[rank],
        takes=pairs(False, owned.mesh, copied),
        gives=pairs(True, owned.mesh, copied),
        collects=pairs(True, mesh, same),
        contributes=pairs(False, mesh, same),
    )
