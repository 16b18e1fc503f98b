"""The rules by which the launcher calls a rank hung, from its signs of life, one every second.

* silent: a rank has given no sign of life for `hang_s`, or for `STOPPED_S` if its process is known
  to be stopped; else its host may be gone, or something keeps its interpreter to itself;
* deadlock: for `hang_s` every rank has waited for another one and not a byte has moved;
* stall: for `stall_s` no exchange has gone on anywhere, some ranks wait and another computes: that
  one is guilty. It may only be slow, hence the long time.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

STOPPED_S = 5.0  # patience with a process that is stopped (SIGSTOP): it will not go on by itself


@dataclass
class Heartbeat:
    """What is known of one rank."""

    seen: float  # when it gave its last sign of life
    progress: int = -1  # its count of bytes moved and exchanges made
    moved: float = 0.0  # when that count last grew
    waiting_for: tuple[int, ...] = ()  # the ranks it waits for; empty while it computes
    done: bool = False  # it has said its last word, a result or an error
    stack: tuple[str, ...] = ()  # where it was at its last sign of life

    def beat(
        self, now: float, progress: int, waiting_for: tuple[int, ...], stack: tuple[str, ...] = ()
    ) -> None:
        """Take in a sign of life."""
        self.seen, self.waiting_for, self.stack = now, waiting_for, stack
        if progress != self.progress:
            self.progress, self.moved = progress, now


@dataclass(frozen=True)
class Verdict:
    """Which rank hangs, and why that is believed."""

    rank: int
    cause: str
    wants_stack: bool = False


def judge(
    heartbeats: Mapping[int, Heartbeat],
    now: float,
    *,
    hang_s: float,
    stall_s: float,
    since: float,
    is_stopped: Callable[[int], bool] = lambda _: False,
) -> Verdict | None:
    """The verdict on a process group that has met, or None while nothing is wrong.

    What the launcher may have missed before `since`, when it was not attentive, is held against
    nobody. `is_stopped` tells of a rank whether its process is stopped, as far as that can be seen.

    >>> beats = {0: Heartbeat(seen=0.0), 1: Heartbeat(seen=65.0)}
    >>> judge(beats, 65.0, hang_s=60, stall_s=600, since=0).cause
    'no sign of life for 60 s'
    """
    active = {rank: beat for rank, beat in sorted(heartbeats.items()) if not beat.done}
    for rank, beat in active.items():
        silent_s = now - max(beat.seen, since)
        if silent_s > hang_s:
            return Verdict(rank, f"no sign of life for {hang_s:g} s")
        if silent_s > STOPPED_S and is_stopped(rank):
            return Verdict(rank, f"no sign of life for {STOPPED_S:g} s")
    if not active:
        return None
    still_s = now - max(since, *(beat.moved for beat in active.values()))
    waiting = {rank: beat.waiting_for for rank, beat in active.items() if beat.waiting_for}
    computing = [rank for rank in active if rank not in waiting]
    if not computing and still_s > hang_s:
        circle = ", ".join(
            f"rank {rank} for {' and '.join(map(str, sorted(peers)))}"
            for rank, peers in waiting.items()
        )
        return Verdict(min(waiting), f"deadlock, no byte moved for {hang_s:g} s: {circle}", True)
    if waiting and still_s > stall_s:
        wanted = Counter(peer for peers in waiting.values() for peer in peers)
        # The one that most others wait for, of equals the lowest.
        guilty = max(computing, key=lambda rank: (wanted[rank], -rank))
        others = ", ".join(str(rank) for rank in waiting)
        return Verdict(
            guilty, f"it has made no exchange for {stall_s:g} s; waiting for it: {others}", True
        )
    return None
