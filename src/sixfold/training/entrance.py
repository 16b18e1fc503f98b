"""How ranks enter a view of their group: whose state is the newest, and how the others get it.

The state after a step is the same bits on every rank that holds it, so the newest wins wherever it
is. Where nobody holds one, at the start and after the loss of all, it is that of the newest
checkpoint.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sixfold.core.errors import PeerLostError, UnfitRankError
from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.views import holder
from sixfold.training.checkpoint import newest_intact, read_notes
from sixfold.training.config import TrainConfig
from sixfold.training.progress import Progress
from sixfold.training.same_bits import Bits, rank_difference, refuse_other_bits, saved_bits
from sixfold.training.strategies.registry import find_strategy
from sixfold.training.strategies.strategy import MovableNetwork, Network


@dataclass(frozen=True, kw_only=True)
class Entered:
    """How the ranks of a view have come by their state."""

    progress: Progress | None = None  # of the checkpoint, or the beginning; None if ranks had one
    # what the rank knows that had the newest state, and has handed it on
    course: Mapping[str, Any] = field(default_factory=dict)
    lost_steps: int = 0  # that were under way and have to be made again
    ended: float = 0.0  # when the last step was, in Unix seconds, as far as ranks know


class HoldsState(Protocol):
    """The training of a rank, as far as its state is concerned."""

    holds_state: bool  # whether it holds one whole
    network: Network

    def load(self, path: Path) -> Progress:
        """Take up a checkpoint."""
        ...

    def begin_anew(self) -> None:
        """Have the network with which the training began."""
        ...


class Entrance:
    """Lets a rank into one view after the other."""

    def __init__(
        self,
        comm: Communicator,
        config: TrainConfig,
        own: Bits,
        total_steps: int,
        checkpoints: Path,
    ) -> None:
        self._world, self._config, self._own = comm, config, own
        self._total, self._checkpoints = total_steps, checkpoints
        strategy = config.strategy
        self._exact = strategy.deterministic and find_strategy(strategy.strategy).repeatable
        self.bits: list[Bits] = []  # of every rank of the view

    def enter(self, rank: HoldsState, version: int, course: Mapping[str, Any]) -> Entered:
        """Begin a view; called on every rank of it.

        `version` grows with the state that the rank holds, and is negative if it holds none;
        `course` is what it knows besides. A `PeerLostError` says that the view has ended meanwhile.
        """
        comm = self._world
        told = all_gather_data(comm, [version, self._own.to_plain(), course])
        self.bits = [Bits(**own) for _, own, _ in told]
        versions = [found for found, _, _ in told]
        source = holder(versions)
        if source is None:
            self._note(rank_difference(self.bits, exact=self._exact))
            return Entered(progress=self._restore(rank))
        self._refuse_odd(source)
        newest = [known for found, _, known in told if found == versions[source]]
        lacking = [rank for rank, found in enumerate(versions) if found < versions[source]]
        assert isinstance(rank.network, MovableNetwork), "its StrategySpec says so"
        if comm.rank in lacking:
            rank.holds_state = False
        if not rank.network.hand_over(source, lacking):
            self._note("what was lost is nowhere else: all go on from the last checkpoint")
            rank.holds_state = False
            return Entered(progress=self._restore(rank))
        return Entered(
            course=told[source][2],
            lost_steps=max(known["lost_steps"] for known in newest),
            ended=max(known["ended"] for known in newest),
        )

    def _note(self, text: str | None) -> None:
        if text and self._world.rank == 0:
            self._world.report({"kind": "note", "text": text})

    def _refuse_odd(self, source: int) -> None:
        """Let nobody in that computes other bits than the rank whose state all go on with."""
        odd = [rank for rank, other in enumerate(self.bits) if self.bits[source].differs(other)]
        if not odd or not self._exact:
            return
        if self._world.rank not in odd:
            raise PeerLostError(odd[0], "it computes other bits")
        raise UnfitRankError(
            source, f"it computes other bits than this rank on {self._own.host}, which leaves"
        )

    def figures(self) -> dict[str, Any]:
        """For `result.json`; the arithmetic of every rank where they are not all alike."""
        words = [each.arithmetic for each in self.bits]
        alike = all(other == words[0] for other in words)
        figures = {"canary": self.bits[0].canary, "arithmetic": words[0]}
        return figures | ({} if alike else {"arithmetic_by_rank": words})

    def _restore(self, rank: HoldsState) -> Progress:
        """Go on from the checkpoint that rank 0 finds newest, or from the beginning."""
        is_root, own = self._world.rank == 0, self._own
        found = newest_intact(self._checkpoints, self._note) if is_root else None
        then = saved_bits(read_notes(found)) if found else Bits()
        told = [found.name if found else "", then.to_plain()]
        newest, before = all_gather_data(self._world, told)[0]
        if not newest:
            rank.begin_anew()
            return Progress(step=self._config.initialization.start_step, canary=own.canary)
        progress = rank.load(self._checkpoints / newest)
        if self._exact and progress.step < self._total:
            refuse_other_bits(self._checkpoints / newest, Bits(**before), own)
        return dataclasses.replace(progress, canary=own.canary)
