"""Asynchronous training with parameter servers: the worker.

The network's state is divided over servers by bytes (`sixfold.training.strategies.param_server`). A
worker takes a lease of a few consecutive steps and for each of them pulls the weights, computes the
gradient g of the step's whole mini-batch, and pushes it; nobody waits for anybody:

    w(t+1) = update( w(t), g(w(t - s)) ),   0 <= s <= K  on every server

Guarantee: bounded staleness. Every step's update is in the final weights exactly once; the order
and the staleness s depend on chance, so the bits do too. With one worker s is always 0, and the
result equals serial training bit for bit. The servers are not read at one moment: a gradient may be
computed at slices of different age.

Traffic: a step pushes gradient and buffers (twice) and pulls weights and buffers, 8 P + 12 Q bytes
for P parameters and Q buffers in float32, whatever the number of workers and servers.

When a worker dies, its lease is issued again and goes on at the first step that is not applied
everywhere; at most the gradient that it was computing is lost. When a server dies, it starts again
from its snapshot, at most about a second old: the updates applied since are lost, and made again.
What was lost is in ``result.json``. The others go on meanwhile, as far as they do not need it.

A worker is a generator that gives way between its conversations, so that `inline` can let workers
take turns and show staleness without processes. Elsewhere it is simply run to its end.

Dean et al., "Large scale distributed deep networks", NIPS 2012 (Downpour SGD); Li et al., "Scaling
distributed machine learning with the parameter server", OSDI 2014.
"""

import itertools
import math
import os
import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sixfold import data as datasets
from sixfold.core.run_directory import Claim, RankFiles
from sixfold.data import permutation
from sixfold.distributed.collectives import tree_all_reduce
from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Buffer
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.distributed.process_group.communicator import alone
from sixfold.distributed.process_group.wire import Address
from sixfold.training.checkpoint import load_checkpoint
from sixfold.training.config import TrainConfig
from sixfold.training.evaluate import evaluate
from sixfold.training.losses.registry import build_loss
from sixfold.training.network import initial_network
from sixfold.training.step.averaging import averaged
from sixfold.training.step.batches import BatchPlan, plan_batches
from sixfold.training.step.clipping import clip_gradient
from sixfold.training.step.norm_sync import has_batch_norm
from sixfold.training.step.optimizer import whole_optimizer
from sixfold.training.step.schedule import parse_schedule
from sixfold.training.step.step import Shard, StepTotals, open_step
from sixfold.training.strategies.param_server.access import Access, ServerLostError
from sixfold.training.strategies.param_server.client import (
    CoordinatorClient,
    OverError,
    RemoteConnection,
)
from sixfold.training.strategies.param_server.leases import Lease
from sixfold.training.strategies.param_server.server import Answer, LeaseName, Pulled, Push
from sixfold.training.strategies.param_server.whole import put_slice, slices_of
from sixfold.training.strategies.staleness import diverged_by_delay

RETRY_S = 0.05  # between two looks for a server that is not there


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """What a worker's process is told."""

    config: TrainConfig  # the settings, with the data resolved
    claim: Claim  # the run directory
    attempt: int  # number of this attempt at the run
    servers: int  # how many
    workers: int  # how many
    address: Address  # of the launcher's `CoordinatorServer`
    secret: bytes  # of the same
    most_bytes: int  # the size of a server's answer at most


def work(job: WorkerJob, worker: int) -> int:
    """Be a worker until the work is done, as an item of a pool; its number.

    A `UserError` if the run directory or the data cannot be used from this host, a
    `NonFiniteLossError` if the training diverges, a `PeerLostError` if the launcher is gone.
    """
    introduction = {
        "role": "worker",
        "worker": worker,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    connection = RemoteConnection(job.address, job.secret, introduction, most_bytes=job.most_bytes)
    host = introduction["host"]
    files = RankFiles(job.claim, attempt=job.attempt, rank=worker, host=str(host))
    with one_thread():
        client = CoordinatorClient(connection)
        for _ in Worker(
            job.config, files.path, client, servers=job.servers, workers=job.workers
        ).run():
            pass
    connection.part()
    return worker


@dataclass(kw_only=True)
class _Times:
    """Seconds since the last report, by phase; `scheduler_s` passes until there is work to do."""

    data_s: float = 0.0
    communication_s: float = 0.0
    waiting_s: float = 0.0
    update_s: float = 0.0
    compute_s: float = 0.0
    scheduler_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Update:
    """What a step makes of the whole state; each server is pushed its slice of it."""

    lr: float  # learning rate
    gradient: Tensor  # (P,)
    before: Tensor  # buffers that the step started from, (Q,)
    after: Tensor  # buffers that it ended with, (Q,)
    moved: Tensor  # how far counters have moved, (K,) int64


class _StartAgainError(Exception):
    """The lease has to be opened again: a server knows less of it than was believed."""


class _FencedError(Exception):
    """Another worker has this lease now."""


class Worker:
    """Fetches leases, computes steps and pushes their updates; see the module."""

    def __init__(
        self,
        config: TrainConfig,
        path: Path,
        client: CoordinatorClient,
        *,
        servers: int,
        workers: int,
    ) -> None:
        self._config, self._path, self._client = config, path, client
        self._workers = workers
        self._data = datasets.open_data(config.data)
        model = initial_network(config, self._data)
        self._plan: BatchPlan = plan_batches(config, self._data, batch_norm=has_batch_norm(model))
        loss = build_loss(config.loss, self._data)
        self._step = open_step(model, config, self._data.shape, loss)
        self._schedule = parse_schedule(config.optimizer)
        self._slices = slices_of(self._step.state, servers)
        self._total = self._step.new_payload()
        self._servers: list[Access] = []
        self._lives = [0] * servers
        self._held: list[Pulled | None] = [None] * servers
        self._times, self._reported_at = _Times(), time.time()
        self._bytes_before = 0
        self._bytes_closed = 0

    def run(self) -> Generator[None]:
        """Work until there is nothing left to do; yields where another worker may take a turn."""
        while True:
            began = time.perf_counter()
            task = self._client.next()
            self._times.scheduler_s += time.perf_counter() - began
            if task["kind"] == "done":
                break
            if task["kind"] == "lease":
                lease = Lease(
                    name=LeaseName(*task["name"]), first=task["first"], steps=task["steps"]
                )
                yield from self._lease(lease, int(task["attempt"]))
                continue
            if task["kind"] == "evaluate":
                self._evaluate(self._path / "checkpoints" / task["checkpoint"])
            else:
                began = time.perf_counter()
                self._client.pause(task["wait_s"])
                self._times.scheduler_s += time.perf_counter() - began
            self._held = [None] * len(self._held)  # meanwhile others have gone on
            yield
        self._forget()

    # A lease.

    def _lease(self, lease: Lease, attempt: int) -> Iterator[None]:
        """Make the steps of a lease that are not applied everywhere yet."""
        while True:
            try:
                yield from self._connect()
                counts = self._open(lease, attempt)
                self._report(lease, attempt, counts, None)
                yield from self._steps(lease, attempt, counts)
                return
            except (_FencedError, OverError):
                return
            except _StartAgainError:
                yield
            except ServerLostError:
                self._forget()  # all: answers of the others may still be on their way
                yield

    def _steps(self, lease: Lease, attempt: int, counts: list[int]) -> Iterator[None]:
        """Make steps until every server has applied the last; `counts` is kept up to date."""
        steps = range(lease.first + min(counts), lease.first + lease.steps)
        with datasets.prefetch(self._shards(steps), depth=self._plan.data.ahead) as stream:
            for number in steps:
                began = time.perf_counter()
                shards = list(itertools.islice(stream, self._plan.count(number)))
                self._times.data_s += time.perf_counter() - began
                line: dict[str, Any] = {}
                while min(counts) <= number - lease.first:
                    self._pull()
                    yield
                    line, update = self._compute(number, shards)
                    yield
                    self._push(update, lease, attempt, number - lease.first, counts)
                self._report(lease, attempt, counts, line)

    def _shards(self, steps: range) -> Iterator[Shard]:
        """All shards of some steps of one epoch."""
        if not steps:
            return
        epoch = self._plan.budget.place(steps[0])[0]
        order = permutation(self._plan.seed, epoch, self._plan.budget.images)
        for number in steps:
            for index in range(self._plan.count(number)):
                yield self._plan.shard(number, index, order)

    def _compute(self, number: int, shards: list[Shard]) -> tuple[dict[str, Any], _Update]:
        """A step at the weights that were pulled: what is logged of it, and what it changes."""
        began = time.perf_counter()
        state = self._step.state
        counters = state.counters()
        for piece, held in zip(self._slices, self._held, strict=True):
            assert held is not None, "weights must be pulled before they are used"
            put_slice(state, counters, piece, held)
        state.set_counters(counters)
        before = state.buffers.clone()
        totals = self._gradient(number, shards)
        if not math.isfinite(totals.loss):
            raise diverged_by_delay(number, totals.loss, self._workers - 1, self._config.optimizer)
        lr = self._schedule.rate(number, self._plan.budget)
        line = {
            "loss": totals.loss,
            "accuracy": totals.accuracy,
            "lr": lr,
            "images": totals.samples,
            "batch": number + 1,
        }
        clip_gradient(self._config.optimizer, totals.gradient)
        update = _Update(
            lr=lr,
            gradient=totals.gradient,
            before=before,
            after=state.buffers,
            moved=state.counters() - counters,
        )
        self._times.compute_s += time.perf_counter() - began
        return line, update

    def _gradient(self, number: int, shards: list[Shard]) -> StepTotals:
        """The mean gradient over a mini-batch, with the bits that `sync` gives it."""
        count = self._plan.count(number)

        def total_sum(partials: list[tuple[Node, Buffer]], out: Buffer) -> Buffer:
            return tree_all_reduce(alone(), partials, count, out=out)

        total_sum(self._step.partials(number, shards, total_sum), self._total.numpy())
        self._step.release()
        return self._step.finish(self._total)

    def _report(
        self, lease: Lease, attempt: int, counts: list[int], line: dict[str, Any] | None
    ) -> None:
        moved = self._bytes_closed + sum(server.bytes_moved for server in self._servers)
        report: dict[str, Any] = {
            "name": list(lease.name),
            "attempt": attempt,
            "count": min(counts),
            "lives": self._lives,
            "bytes": moved - self._bytes_before,
        }
        self._bytes_before = moved
        if line is not None:
            times, self._times = self._times, _Times()
            whole_s = sum(vars(times).values())
            line["images_per_s"] = round(line["images"] / max(whole_s, 1e-9), 3)
            began, self._reported_at = self._reported_at, time.time()
            report |= {"line": line, "times": vars(times) | {"begin": began}}
        self._client.report(report)

    # Conversations with the servers: all are asked before any is listened to.

    def _connect(self) -> Iterator[None]:
        """Reach all servers, however long one of them is away."""
        if self._servers:
            return
        began = time.perf_counter()
        while True:
            found = self._client.servers()
            try:
                if all(life for _, life in found):
                    for place, (address, _) in enumerate(found):
                        self._servers.append(self._client.reach(place, address))
                    break
            except ServerLostError:
                self._forget()
            self._client.pause(RETRY_S)
            yield
        self._lives = [life for _, life in found]
        self._times.waiting_s += time.perf_counter() - began

    def _forget(self) -> None:
        for server in self._servers:
            self._bytes_closed += server.bytes_moved
            server.close()
        self._servers, self._held = [], [None] * len(self._held)

    def _open(self, lease: Lease, attempt: int) -> list[int]:
        """Begin the attempt everywhere; how many of the lease's updates each server has applied."""
        for server in self._servers:
            server.open(lease.name, attempt)
        answers = [self._answer(place)[0] for place in range(len(self._servers))]
        return [answer.applied for answer in answers if answer is not None]

    def _pull(self) -> None:
        began = time.perf_counter()
        missing = [place for place, held in enumerate(self._held) if held is None]
        for place in missing:
            self._servers[place].pull()
        for place in missing:
            self._answer(place)
        self._times.communication_s += time.perf_counter() - began

    def _push(
        self, update: _Update, lease: Lease, attempt: int, sequence: int, counts: list[int]
    ) -> None:
        """Push a step to the servers that have not applied it; their answers bring new weights."""
        began = time.perf_counter()
        bases, self._held = self._held, [None] * len(self._held)
        wanting = [place for place, count in enumerate(counts) if count == sequence]
        for place in wanting:
            piece, base = self._slices[place], bases[place]
            assert base is not None, "weights must be pulled before they are used"
            self._servers[place].push(
                Push(
                    lease=lease.name,
                    sequence=sequence,
                    attempt=attempt,
                    base=base.version,
                    lr=update.lr,
                    gradient=update.gradient[slice(*piece.parameters)],
                    before=update.before[slice(*piece.buffers)],
                    after=update.after[slice(*piece.buffers)],
                    moved=update.moved[slice(*piece.counters)],
                )
            )
        answers = [self._answer(place)[0] for place in wanting]
        self._times.communication_s += time.perf_counter() - began
        for place, answer in zip(wanting, answers, strict=True):
            assert answer is not None, "a push is always answered"
            if answer.outcome == "gap":
                raise _StartAgainError
            counts[place] = answer.applied

    def _answer(self, place: int) -> tuple[Answer | None, Pulled | None]:
        """A server's answer; weights that come with it are the newest.

        A worker that is fenced off listens no further, and gives up its connections with the rest.
        """
        answer, pulled = self._servers[place].answer()
        if pulled is not None:
            self._held[place] = pulled
        if answer is not None and answer.outcome == "fenced":
            self._forget()
            raise _FencedError
        return answer, pulled

    def _evaluate(self, path: Path) -> None:
        """Judge a checkpoint, by this worker alone.

        One that has gone meanwhile was evaluated by another worker, since this one took so long.
        """
        if not path.is_file():
            return
        began = time.monotonic()
        state = self._step.state
        optimizer = whole_optimizer(self._config.optimizer, state)
        load_checkpoint(path, state, optimizer)
        part = self._data.validation if len(self._data.validation) else self._data.test
        with averaged(state, optimizer):
            found = evaluate(
                alone(), self._step.model, part, self._plan.make_batch, self._step.loss.plain
            )
        assert found is not None, "the only rank holds the result"
        self._client.evaluated(found.metrics(), found.quality, time.monotonic() - began)
