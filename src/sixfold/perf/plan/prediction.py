"""What is predicted of one way to divide a training."""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.perf.plan.candidates import Candidate


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Times are seconds; a batch is what `--batch-size` says, whoever computes it."""

    candidate: Candidate  # the way
    batch_s: float  # from one batch's end to the next one's, in the middle of all steps
    low_s: float  # below which one batch in twenty stays
    high_s: float  # above which one in twenty is
    mean_s: float  # on average, slow steps included; what long runs are made of
    compute_s: float  # of `batch_s`, a rank's own work
    exchange_s: float  # of it, moving bytes
    waiting_s: float  # of it, waiting for the slowest
    scheduler_s: float  # per batch, the engine's start-up, spread over the run
    total_s: float  # of the whole run, start-up included, evaluations not
    sent_bytes: float  # by the busiest rank, per batch
    memory_bytes: float  # of a rank
    host_bytes: float  # of all ranks of a host
    idle_ranks: int  # that have nothing to do
    fits: bool  # whether the hosts have that much memory
    limit: str  # what limits it, in words
    extrapolated: bool = False  # whether more ranks are predicted than were measured


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained."""

    batch_size: int  # images of a step
    steps: int  # of the run
    batch_norm: bool = False  # whether shards must be larger
    shards: int | None = None  # `--shards`
    local_steps: int = 16  # steps between two merges of local SGD
    merge_every: int = 100  # steps between two meetings of hogwild
    servers: int = 1  # parameter servers
    exact: bool = True  # whether gradients are added in the fixed tree
