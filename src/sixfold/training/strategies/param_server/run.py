"""The launcher of a training with parameter servers.

Workers are items of the engine's `pool`: one that dies is replaced by the engine (on Spark by
Spark, and here once more), and the others go on. Servers are items of a pool of this machine, so
that one that dies is started again from its snapshot. On Spark too they live beside the launcher
and not in executors: there they would take task slots from the workers and die with the very
executors whose death they are to outlive; the price is that all traffic goes through one machine.
On `inline`, servers are objects and workers take turns.

When all steps are made, an ordinary process group takes up the last checkpoint, of which no step is
left to do: it evaluates with all ranks and writes the weights, as after any training.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sixfold import data as datasets
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import RankFiles, RunDirectory
from sixfold.distributed.engines import Engine, open_engine
from sixfold.training.checkpoint import newest_intact
from sixfold.training.config import TrainConfig
from sixfold.training.network import initial_network
from sixfold.training.progress import Progress
from sixfold.training.step.batches import plan_batches
from sixfold.training.step.norm_sync import has_batch_norm
from sixfold.training.step.optimizer import make_optimizer, whole_optimizer
from sixfold.training.step.parameter_runs import Run, parameter_runs, runs_within
from sixfold.training.step.step import open_step
from sixfold.training.strategies.param_server.client import CoordinatorClient, LocalConnection
from sixfold.training.strategies.param_server.coordinator import Coordinator
from sixfold.training.strategies.param_server.coordinator_server import CoordinatorServer
from sixfold.training.strategies.param_server.server import ShardServer, Snapshot
from sixfold.training.strategies.param_server.service import ServerJob, serve
from sixfold.training.strategies.param_server.snapshots import path_of, write_snapshot
from sixfold.training.strategies.param_server.whole import WholeState
from sixfold.training.strategies.param_server.worker import Worker, WorkerJob, work
from sixfold.training.strategies.staleness import advice

KEEP_S = 0.05  # between two looks whether it is time to save
HANG_S = 60.0
"""Silence after which a server, which is a process of this machine, is killed and started again."""
STALL_S = 600.0
"""Without a word from any worker, after which all are taken to hang; a step may be slow, hence the
long time."""
RETRIES = 10  # how often a worker, or a server, is replaced; the others do not notice
STOP_S = 30.0  # for servers to end once they are told
PART_S = 10.0
"""For a worker to hear that the work is done: it asks again within milliseconds or, if it has
just lost its lease to another one, after a step."""
STALENESS_PER_WORKER = 4
"""Workers of one speed see a staleness of about their number less one; four times that leaves room
for uneven ones, and still refuses a gradient that belongs to weights of long ago."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the steps."""

    figures: dict[str, Any]  # for ``result.json``
    restarts: int  # workers and servers that were replaced
    begun_s: float  # seconds from the call until the first worker was there


def train_with_servers(
    config: TrainConfig, directory: RunDirectory, engine: Engine, workers: int, on_event: OnEvent
) -> Outcome:
    """Make all steps of a training; the last checkpoint holds their result.

    A `UserError` if the last checkpoint or the data cannot be used, a `RunError` if the run failed,
    a KeyboardInterrupt after Ctrl-C, with a checkpoint.
    """
    attempt = directory.claim()
    began, first_seen = time.monotonic(), []

    def heard(event: Any) -> None:
        if event["kind"] == "rank":
            first_seen.append(time.monotonic())
        on_event(event)

    if workers > 1 and config.optimizer.optimizer == "sgd":
        text = f"param_server: {advice(workers - 1, config.optimizer.momentum)}"
        on_event({"kind": "note", "text": text})
    coordinator, snapshots, most_bytes = _prepare(config, directory, attempt, workers, heard)
    try:
        if engine.name == "inline":
            engine.pool(
                lambda _: _take_turns(config, directory, coordinator, snapshots, workers, attempt),
                [0],
                workers=1,
                log=directory.file("log.txt"),
            )
        else:
            _Processes(config, directory, engine, coordinator, most_bytes, on_event).run(
                snapshots, workers, attempt
            )
    finally:
        coordinator.close()
    return Outcome(
        figures={
            **coordinator.figures(),
            "staleness_bound": staleness_bound(config, workers),
            "train_images_per_s": coordinator.throughput(),
            "training_s": round(time.monotonic() - began, 6),
        },
        restarts=coordinator.worker_losses + len(coordinator.comebacks),
        begun_s=(first_seen[0] if first_seen else time.monotonic()) - began,
    )


def staleness_bound(config: TrainConfig, workers: int) -> int:
    """K, as `--staleness` says or by default."""
    bound = config.strategy.staleness
    return STALENESS_PER_WORKER * workers if bound is None else bound


def server_runs(config: TrainConfig, whole: WholeState) -> list[tuple[Run, ...]]:
    """Settings of single parameters in each server's slice."""
    runs = parameter_runs(config.optimizer, whole.state)
    return [runs_within(runs, *piece.parameters) for piece in whole.slices]


def _prepare(
    config: TrainConfig, directory: RunDirectory, attempt: int, workers: int, on_event: OnEvent
) -> tuple[Coordinator, Sequence[Snapshot], int]:
    """The coordinator, what every server starts from, and the size of the largest message."""
    data = datasets.open_data(config.data)
    model = initial_network(config, data)
    plan = plan_batches(config, data, batch_norm=has_batch_norm(model))
    state = open_step(model, config, data.shape).state
    optimizer = whole_optimizer(config.optimizer, state)
    whole = WholeState(state, optimizer, config.strategy.servers)
    found = newest_intact(
        directory.file("checkpoints"), lambda text: on_event({"kind": "note", "text": text})
    )
    if found is not None:
        progress, snapshots = whole.restore(found)
    else:
        progress, snapshots = Progress(), whole.snapshots()
    lock = threading.Lock()

    def in_turn(event: Any) -> None:
        with lock:
            on_event(event)

    coordinator = Coordinator(
        config,
        plan.budget,
        RankFiles(directory.ticket(), attempt=attempt, rank=0, host="the launcher's host"),
        whole,
        progress,
        snapshots,
        workers=workers,
        on_event=in_turn,
        part="validation" if len(data.validation) else "test",
    )
    vectors = 3 + len(optimizer.slots)
    elements = len(state.parameters) + len(state.buffers) + state.sections[2]
    return coordinator, snapshots, vectors * elements * 8 + 4096


def _take_turns(
    config: TrainConfig,
    directory: RunDirectory,
    coordinator: Coordinator,
    snapshots: Sequence[Snapshot],
    workers: int,
    attempt: int,
) -> None:
    """Everything in this process: each worker has its turn until its next conversation."""
    bound = staleness_bound(config, workers)
    servers = [
        ShardServer(
            snapshot,
            make_optimizer(config.optimizer, snapshot.weights, own),
            staleness=bound,
            life=1,
        )
        for snapshot, own in zip(snapshots, server_runs(config, coordinator.whole), strict=True)
    ]
    for number, snapshot in enumerate(snapshots):
        coordinator.server_joined(number, None, 1, snapshot.ledger.applied, os.getpid())

    def gather() -> list[Snapshot]:
        return [server.snapshot() for server in servers]

    with contextlib.ExitStack() as stack:
        playing = []
        for number in range(workers):
            client = CoordinatorClient(LocalConnection(coordinator, servers, number))
            files = RankFiles(
                directory.ticket(), attempt=attempt, rank=number, host="the launcher's host"
            )
            turns = Worker(config, files.path, client, servers=len(servers), workers=workers).run()
            stack.callback(turns.close)
            playing.append(turns)
        try:
            while playing:
                playing = [turns for turns in playing if next(turns, turns) is not turns]
                coordinator.keep(gather)
        except KeyboardInterrupt:
            coordinator.save(gather)
            raise


class _LeftBehindError(Exception):
    """The work is done, but a worker does not come to hear of it."""


class _Processes:
    """A training whose workers and servers are processes."""

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        engine: Engine,
        coordinator: Coordinator,
        most_bytes: int,
        on_event: OnEvent,
    ) -> None:
        self._config, self._directory, self._engine = config, directory, engine
        self._listen = on_event
        self._coordinator, self._most_bytes = coordinator, most_bytes
        restarts = config.engine.max_restarts
        self._retries = RETRIES if restarts is None else restarts

    def run(self, snapshots: Sequence[Snapshot], workers: int, attempt: int) -> None:
        """Start the servers, then the workers; end with them."""
        listen_on, reached_by = self._engine.hosts()
        folder = self._directory.file("servers")
        folder.mkdir(exist_ok=True)
        for number, snapshot in enumerate(snapshots):
            write_snapshot(path_of(folder, number), snapshot)
        with contextlib.closing(
            CoordinatorServer(
                self._coordinator, listen_on, most_bytes=self._most_bytes, tls=self._engine.tls
            )
        ) as coordinator_server:
            server_job = ServerJob(
                address=(listen_on, coordinator_server.address[1]),
                secret=coordinator_server.secret,
                host=listen_on,
                advertised=reached_by,
                folder=folder,
                optimizer=self._config.optimizer,
                runs=server_runs(self._config, self._coordinator.whole),
                staleness=staleness_bound(self._config, workers),
                most_bytes=self._most_bytes,
            )
            worker_job = WorkerJob(
                config=self._config,
                claim=self._directory.ticket(),
                attempt=attempt,
                servers=len(snapshots),
                workers=workers,
                address=(reached_by, coordinator_server.address[1]),
                secret=coordinator_server.secret,
                most_bytes=self._most_bytes,
            )
            with (
                self._running_servers(server_job, len(snapshots), coordinator_server),
                self._kept(coordinator_server),
            ):
                self._run_workers(worker_job, workers, coordinator_server)
        if self._coordinator.failure is not None and not self._coordinator.finished:
            raise self._coordinator.failure

    def _run_workers(
        self, job: WorkerJob, workers: int, coordinator_server: CoordinatorServer
    ) -> None:
        def returned(_index: int, _worker: int) -> None:
            """Do not wait for a worker that hangs when the others have ended the work."""
            if self._coordinator.over and not coordinator_server.wait_for_workers(PART_S):
                raise _LeftBehindError

        try:
            self._engine.pool(
                functools.partial(work, job),
                range(workers),
                workers=workers,
                retries=self._retries,
                on_done=returned,
                log=self._directory.file("log.txt"),
            )
        except _LeftBehindError:
            return
        except KeyboardInterrupt:
            self._coordinator.save(coordinator_server.gather)
            raise

    @contextmanager
    def _running_servers(
        self, job: ServerJob, servers: int, coordinator_server: CoordinatorServer
    ) -> Iterator[None]:
        """Servers in a pool of this machine, watched by a thread."""
        with contextlib.ExitStack() as stack:
            engine = self._engine
            if engine.name != "local":
                engine = open_engine(
                    "local",
                    preload=("sixfold.training.strategies.param_server.service",),
                    cpu_isa=self._engine.cpu_isa,
                )
                stack.enter_context(contextlib.closing(engine))

            def watch() -> None:
                engine.pool(
                    functools.partial(serve, job),
                    range(servers),
                    workers=servers,
                    retries=self._retries,
                    log=self._directory.file("log.txt"),
                )

            thread = self._thread("sixfold-servers", watch)
            try:
                yield
            finally:
                coordinator_server.stop_servers()
                thread.join(STOP_S)

    @contextmanager
    def _kept(self, coordinator_server: CoordinatorServer) -> Iterator[None]:
        """The coordinator at its work, in a thread."""
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(KEEP_S):
                for pid in coordinator_server.silent_servers(HANG_S):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)  # its pool starts it again
                self._wake(self._coordinator.silent_workers(STALL_S))
                self._coordinator.keep(coordinator_server.gather)

        thread = self._thread("sixfold-keeper", keep)
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _wake(self, hung: Sequence[tuple[str, int]]) -> None:
        """Kill workers of this host, so that their pool replaces them; of others, tell."""
        for host, pid in hung:
            told = f"no worker has said anything for {STALL_S:g} s; process {pid} on {host}"
            if host == socket.gethostname():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self._listen({"kind": "note", "text": f"{told} is killed and replaced"})
            else:
                remedy = "look at it there, or stop the run and go on with --resume"
                self._listen({"kind": "note", "text": f"{told} hangs: {remedy}"})

    def _thread(self, name: str, body: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                body()
            except BaseException as error:
                self._coordinator.fail(error)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread
