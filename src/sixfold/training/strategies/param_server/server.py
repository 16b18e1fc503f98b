"""A parameter server as a state machine: no sockets, no clock, no randomness.

It owns a slice of the network's state, applies updates to it, and remembers which. The work of a
run is cut into *leases*, each the steps of one piece of an epoch, named (epoch, shard). The
update of the lease's q-th step has the key (epoch, shard, q), and a server applies a lease's
updates in the order of q. So the table of what has been applied is one number a lease: how many.
With W workers, w the weights and t counting the updates of this server:

    w(t+1) = update( w(t), gradient at w(t - s) ),  0 <= s <= K

s is the *staleness*: how many updates were applied between the pull and the push. A push that is
staler than K is refused; the worker pulls again and computes the gradient anew.

What a push can meet, in the order in which it is checked:

* fenced: a later attempt at the lease has begun; the worker that sent it was given up.
* duplicate: this key has been applied before; nothing changes.
* gap: an earlier key of the lease has not been applied here; the worker starts again from
  what `open` says.
* lapsed: the weights came from before a restart of this server, so their age is unknown.
* stale: more than K updates have been applied since the pull.
* applied.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014; Ho et al.,
"More effective distributed ML via a stale synchronous parallel parameter server", NIPS 2013. There
the slowest worker holds up all others at the bound; here the slow worker is refused instead.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sixfold.training.step.update_rule import Optimizer

Outcome = Literal["fenced", "duplicate", "gap", "lapsed", "stale", "applied"]


class LeaseName(NamedTuple):
    """A piece of the work: the shard-th part of an epoch (both from 0)."""

    epoch: int
    shard: int


class Version(NamedTuple):
    """Which weights: `clock` updates after the start, in one life of a server."""

    life: int  # drawn anew at every start of the server
    clock: int  # updates applied so far, over all lives


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A copy of a server's slice: (p,), (q,) and (k,) elements."""

    version: Version
    weights: Tensor
    buffers: Tensor
    counters: Tensor


@dataclass(frozen=True, kw_only=True)
class Push:
    """One step's update of a server's slice."""

    lease: LeaseName  # the piece of work that the step belongs to
    sequence: int  # number of the step within it
    attempt: int  # number of the attempt at the lease
    base: Version  # version of the weights that the gradient was computed at
    lr: float  # learning rate
    gradient: Tensor  # mean over the samples, (p,)
    before: Tensor  # buffers that the step started from, (q,)
    after: Tensor  # buffers that it ended with, (q,)
    moved: Tensor  # how far counters have moved, (k,) int64


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a push, or of an `open`."""

    outcome: Outcome  # see the module; "applied" for a successful `open`
    applied: int  # how many of the lease's updates have been applied here
    version: Version  # of the weights now
    staleness: int = 0  # of the update, if it was applied


@dataclass(kw_only=True)
class Ledger:
    """What a server remembers of the updates it has applied."""

    # Lease -> how many of its updates; absent means none.
    applied: dict[LeaseName, int] = field(default_factory=dict)
    # Lease -> number of the latest attempt that has been heard of.
    fences: dict[LeaseName, int] = field(default_factory=dict)
    clock: int = 0  # updates applied
    # Staleness -> how many updates had it.
    stalenesses: Counter[int] = field(default_factory=Counter)
    # "stale" and "lapsed" -> how many pushes were.
    refused: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Ledger:
        """An independent copy."""
        return Ledger(
            applied=dict(self.applied),
            fences=dict(self.fences),
            clock=self.clock,
            stalenesses=Counter(self.stalenesses),
            refused=Counter(self.refused),
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a server knows, at one moment: weights and what made them cannot fall apart."""

    weights: Tensor  # (p,)
    buffers: Tensor  # (q,)
    counters: Tensor  # (k,) int64
    slots: dict[str, Tensor]  # state of the optimizer, each (p,)
    updates: int  # of the optimizer
    ledger: Ledger  # what has been applied


class ShardServer:
    """A server of one slice; see the module.

    `snapshot` is taken over, not copied; `staleness` is K, the most updates between a pull and its
    push; no other start of this server has the number `life`.
    """

    def __init__(
        self, snapshot: Snapshot, optimizer: Optimizer, *, staleness: int, life: int
    ) -> None:
        self._weights = snapshot.weights
        self._buffers = snapshot.buffers
        self._counters = snapshot.counters
        self._optimizer = optimizer
        for name, slot in optimizer.slots.items():
            slot.copy_(snapshot.slots[name])
        optimizer.updates = snapshot.updates
        self._ledger = snapshot.ledger
        self._staleness = staleness
        self._life = life

    @property
    def version(self) -> Version:
        """Which weights it holds now."""
        return Version(self._life, self._ledger.clock)

    def open(self, lease: LeaseName, attempt: int) -> Answer:
        """Begin an attempt at a lease: from now on earlier ones may push nothing."""
        if attempt < self._ledger.fences.get(lease, 0):
            return self._answer("fenced", lease)
        self._ledger.fences[lease] = attempt
        return self._answer("applied", lease)

    def pull(self) -> Pulled:
        """A copy of the slice as it is now."""
        return Pulled(
            version=self.version,
            weights=self._weights.clone(),
            buffers=self._buffers.clone(),
            counters=self._counters.clone(),
        )

    def push(self, push: Push) -> Answer:
        """Apply an update, unless something speaks against it; its tensors may be overwritten."""
        ledger = self._ledger
        outcome, staleness = self._judge(push)
        if outcome != "applied":
            if outcome in ("stale", "lapsed"):
                ledger.refused[outcome] += 1
            return self._answer(outcome, push.lease)
        ledger.fences[push.lease] = push.attempt
        self._optimizer.update(self._weights, push.gradient, push.lr)
        # Where nobody came between, exactly what the step has made of it; else what it has added.
        moved = self._buffers + (push.after - push.before)
        torch.where(self._buffers == push.before, push.after, moved, out=self._buffers)
        self._counters += push.moved
        ledger.applied[push.lease] = push.sequence + 1
        ledger.clock += 1
        ledger.stalenesses[staleness] += 1
        return self._answer("applied", push.lease, staleness)

    def snapshot(self) -> Snapshot:
        """A copy of everything."""
        return Snapshot(
            weights=self._weights.clone(),
            buffers=self._buffers.clone(),
            counters=self._counters.clone(),
            slots={name: slot.clone() for name, slot in self._optimizer.slots.items()},
            updates=self._optimizer.updates,
            ledger=self._ledger.copy(),
        )

    def _judge(self, push: Push) -> tuple[Outcome, int]:
        """What speaks against a push, or "applied"; and its staleness."""
        ledger = self._ledger
        applied = ledger.applied.get(push.lease, 0)
        staleness = ledger.clock - push.base.clock
        if push.attempt < ledger.fences.get(push.lease, 0):
            return "fenced", 0
        if push.sequence < applied:
            return "duplicate", 0
        if push.sequence > applied:
            return "gap", 0
        if push.base.life != self._life:
            return "lapsed", 0
        if staleness > self._staleness:
            return "stale", staleness
        return "applied", staleness

    def _answer(self, outcome: Outcome, lease: LeaseName, staleness: int = 0) -> Answer:
        return Answer(
            outcome=outcome,
            applied=self._ledger.applied.get(lease, 0),
            version=self.version,
            staleness=staleness,
        )
