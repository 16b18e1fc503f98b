"""Copies of the parts: how a divided network outlives the loss of a rank.

A part is held twice: where groups divide the batch, by the same rank of every group; else its
rank's successor in the group keeps a *mirror* of it, parameters, buffers and the state of the
update rule. A mirror is moved on as the part itself is, from the same sums, so only these are sent:

    1.  every rank has the sums of its part, the gradient clipped, and sends them to its successor
    2.  all ranks meet
    3.  every rank updates its part, and its mirror of another

A rank that has updated knows that all others can, even if one is lost meanwhile: each has what it
takes for its own part and for its mirror. So after a loss all go on from the newest state that any
of them has, and the lost part comes from its copy. Two ranks need not meet: whoever is left has
made both updates, or neither. Where a part and its copy are lost together, nobody has the state.
"""

from dataclasses import dataclass

from torch import Tensor

from sixfold.distributed.collectives import all_gather_data, all_gather_int
from sixfold.distributed.process_group import Communicator
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer
from sixfold.training.strategies.replicated import move_state


@dataclass
class HeldPart:
    """A part of the network that a rank holds: its own, or the mirror of another's."""

    state: FlatState
    rule: Optimizer  # the update rule, without clipping
    total: Tensor  # (payload,) the sums of the step under way
    is_whole: bool  # whether all of it is of one step

    @property
    def version(self) -> int:
        """How many updates it has had; -1 if it is not whole."""
        return self.rule.updates if self.is_whole else -1

    def update(self, lr: float) -> None:
        """Make the step of which `total` has the sums."""
        if self.state.has_buffers:
            self.state.move_buffers(self.total)
        self.rule.update(self.state.parameters, self.state.split(self.total)[0], lr)

    def send(self, comm: Communicator, to: int) -> None:
        """Copy it to another rank, which calls `receive`."""
        move_state(comm, self.state, self.rule, comm.rank, [to])

    def receive(self, comm: Communicator, source: int) -> None:
        """Have what another rank sends."""
        self.is_whole = False
        move_state(comm, self.state, self.rule, source, [comm.rank])
        self.is_whole = True


class PartCopies:
    """The part of one rank, and what it keeps of another's.

    Args:
        comm: all ranks; group after group.
        group: those of this rank's group.
        own: this rank's part.
        mirror: that of the rank before it in the group; None where other groups have the same.
    """

    def __init__(
        self, comm: Communicator, group: Communicator, own: HeldPart, mirror: HeldPart | None
    ) -> None:
        self.own, self.mirror, self.traffic = own, mirror, comm.traffic
        self._world, self._group = comm, group
        self._before, self._after = (group.rank - 1) % group.size, (group.rank + 1) % group.size
        self._mirrored_view = 0  # in which all mirrors are known to be whole
        self._ready: float | None = None  # the learning rate of an update that can be made

    def update(self, lr: float) -> None:
        """Make a step's update when nobody's loss can keep the others from it.

        Raises:
            PeerLostError: if a rank is gone; what has become of the update, `hand_over` decides.
        """
        comm = self._world
        if comm.elastic:
            if self.mirror is not None:
                sends = {self._after: self.own.total.numpy()}
                self._group.exchange(sends, {self._before: self.mirror.total.numpy()})
            self._ready = lr
            if comm.size > 2:
                comm.barrier()
        self._make_update(lr)

    def _make_update(self, lr: float) -> None:
        self._ready = None
        for part in (self.own, self.mirror):
            if part is not None:
                part.update(lr)

    def fill_mirrors(self) -> None:
        """See, before the first step of a view, that all mirrors are of the present state."""
        mirror = self.mirror
        if mirror is None or self._mirrored_view == self._world.view:
            return
        group = self._group
        present = all_gather_int(group, int(mirror.version == self.own.version))
        for rank, is_present in enumerate(present):
            if is_present:
                continue
            if rank == self._after:
                self.own.send(group, rank)
            if rank == group.rank:
                mirror.receive(group, self._before)
        self._mirrored_view = self._world.view

    def hand_over(self, source: int) -> bool:
        comm, group, own, mirror = self._world, self._group, self.own, self.mirror
        ready, self._ready = self._ready, None
        held = [own.version, -1 if mirror is None else mirror.version]
        told = all_gather_data(comm, [*held, ready is not None])
        newest = told[source][0]
        if ready is not None and own.version == newest - 1:
            self._make_update(ready)
        have, mirrored = (
            [t[kind] + 1 if t[2] and t[0] == newest - 1 else t[kind] for t in told]
            for kind in (0, 1)
        )
        givers: dict[int, int] = {}
        for rank in (rank for rank, version in enumerate(have) if version != newest):
            first, place = rank - rank % group.size, rank % group.size
            alike = [r for r in range(place, comm.size, group.size) if have[r] == newest]
            after = first + (place + 1) % group.size
            if not alike and mirrored[after] != newest:
                return False
            givers[rank] = alike[0] if alike else after
        for rank, giver in givers.items():
            if comm.rank == giver:
                part = own if (rank - giver) % group.size == 0 else mirror
                assert part is not None
                part.send(comm, rank)
            elif comm.rank == rank:
                own.receive(comm, giver)
        return True
