"""What is predicted of one way to divide a training."""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.perf.plan.candidates import Candidate


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Times are seconds; a batch is what `--batch-size` says, whoever computes it.

    Attributes:
        candidate: the way.
        batch_s: from one batch's end to the next one's, in the middle of all steps.
        low_s: below which one batch in twenty stays.
        high_s: above which one in twenty is.
        mean_s: on average, slow steps included; what long runs are made of.
        compute_s: of `batch_s`, a rank's own work.
        exchange_s: of it, moving bytes.
        waiting_s: of it, waiting for the slowest.
        scheduler_s: per batch, the engine's start-up, spread over the run.
        total_s: of the whole run, start-up included, evaluations not.
        sent_bytes: by the busiest rank, per batch.
        memory_bytes: of a rank.
        host_bytes: of all ranks of a host.
        idle_ranks: that have nothing to do.
        fits: whether the hosts have that much memory.
        limit: what limits it, in words.
        extrapolated: whether more ranks are predicted than were measured.
    """

    candidate: Candidate
    batch_s: float
    low_s: float
    high_s: float
    mean_s: float
    compute_s: float
    exchange_s: float
    waiting_s: float
    scheduler_s: float
    total_s: float
    sent_bytes: float
    memory_bytes: float
    host_bytes: float
    idle_ranks: int
    fits: bool
    limit: str
    extrapolated: bool = False


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained.

    Attributes:
        batch_size: images of a step.
        steps: of the run.
        batch_norm: whether shards must be larger.
        shards: `--shards`.
        local_steps: steps between two merges of local SGD.
        merge_every: steps between two meetings of hogwild.
        servers: parameter servers.
        exact: whether gradients are added in the fixed tree.
    """

    batch_size: int
    steps: int
    batch_norm: bool = False
    shards: int | None = None
    local_steps: int = 16
    merge_every: int = 100
    servers: int = 1
    exact: bool = True
