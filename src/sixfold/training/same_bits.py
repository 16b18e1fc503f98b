"""Whether ranks compute the same bits, and those of the steps before.

The canary is the proof (`sixfold.training.step.canary`), arithmetic the explanation
(`sixfold.training.step.arithmetic`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sixfold.core.errors import UserError
from sixfold.training.step.arithmetic import Arithmetic, arithmetic, arithmetic_difference

_ALLOWED = "or give --deterministic false, which allows other bits"


@dataclass(frozen=True)
class Bits:
    """What is known of how a rank computes; empty where it is not."""

    canary: str = ""
    arithmetic: Arithmetic = field(default_factory=dict)
    host: str = ""

    def to_plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def differs(self, other: Bits) -> bool:
        """Whether the canaries show that the other computes otherwise."""
        ours, theirs = self.canary.partition(" "), other.canary.partition(" ")
        return ours[0] != theirs[0] and ours[2] == theirs[2] and bool(ours[0] and theirs[0])


def own_bits(canary: str, host: str) -> Bits:
    """Those of this process."""
    return Bits(canary=canary, arithmetic=arithmetic(), host=host)


def saved_bits(notes: dict[str, str]) -> Bits:
    """Those of a checkpoint, from its metadata."""
    progress = json.loads(notes.get("progress", "{}"))
    return Bits(progress.get("canary", ""), json.loads(notes.get("arithmetic", "{}")))


def rank_difference(ranks: Sequence[Bits], *, exact: bool) -> str | None:
    """What to say of the first rank that computes otherwise than rank 0; None if all are alike.

    Args:
        ranks: of every rank.
        exact: whether such a rank is refused.

    Raises:
        UserError: if it is.
    """
    first = ranks[0]
    for rank, other in enumerate(ranks):
        if first.differs(other):
            what = arithmetic_difference(first.arithmetic, other.arithmetic, apart=True)
            found = (
                f"rank {rank} ({other.host}) computes other bits than rank 0 ({first.host}): "
                f"{what or _UNKNOWN}"
            )
            if exact:
                raise UserError(f"{found}; {_together(what)}{_ALLOWED}")
            return found
    for rank, other in enumerate(ranks):
        if what := arithmetic_difference(first.arithmetic, other.arithmetic):
            alike = ", yet the same bits in a trial" if other.canary else ""
            return f"rank {rank} computes otherwise than rank 0{alike}: {what}"
    return None


_UNKNOWN = (
    "torch, instruction sets and variables are the same, so one of the two processors may be faulty"
)


def _together(what: str | None) -> str:
    return "give --cpu-isa avx2, use hosts that are alike, " if what else "leave one of them out, "


def refuse_other_bits(where: object, then: Bits, now: Bits) -> None:
    """Raise if a run would go on with other bits than it had.

    Another kind of processor is none where the canary shows that it computes the same.

    Args:
        where: the checkpoint.
        then: what wrote it.
        now: this rank.
    """
    before = then.arithmetic
    if then.canary and then.canary == now.canary:
        before = {name: words for name, words in before.items() if name != "instruction_sets"}
    what = arithmetic_difference(before, now.arithmetic)
    if what:
        raise UserError(
            f"{where} was computed with other arithmetic: {what}; go on where it is the same, "
            f"{_ALLOWED}"
        )
    if then.differs(now):
        raise UserError(
            f"{where} was computed with other bits than {now.host} computes now, although "
            f"{_UNKNOWN}: go on with another one, {_ALLOWED}"
        )
