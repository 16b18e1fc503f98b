"""Ranks and items of pools as tasks of a Spark application, each a job of its own.

Nothing of any size goes through Spark: ranks talk to each other and to the launcher's `Rendezvous`
over sockets of their own. What is lost is replaced here, and counted.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyspark import cloudpickle

from sixfold.core.cpu_isa import NATIVE, variables
from sixfold.core.environment import HASH_SEED
from sixfold.core.errors import RunError, UserError
from sixfold.distributed.engines.engine import (
    Engine,
    GroupCall,
    GroupResult,
    Item,
    PoolCall,
    Result,
)
from sixfold.distributed.engines.group_run import GroupRun
from sixfold.distributed.engines.rank_log import RankLog
from sixfold.distributed.engines.spark_job import explain, is_in_vain
from sixfold.distributed.engines.spark_package import ship as ship_sources
from sixfold.distributed.engines.spark_pool import PoolRun
from sixfold.distributed.engines.spark_ranks import JOIN_S, SCHEDULE_S, SparkProcesses
from sixfold.distributed.engines.spark_relay import Relay
from sixfold.distributed.engines.spark_session import Session, open_session
from sixfold.distributed.engines.spark_worker import PRINTED, RankTask, UserCode
from sixfold.distributed.process_group import PlainData
from sixfold.distributed.process_group.generation import PATIENCE, Patience
from sixfold.distributed.process_group.membership import Place
from sixfold.distributed.process_group.rendezvous import Rendezvous


class SparkEngine(Engine):
    """The engine of a Spark cluster."""

    name = "spark"

    def __init__(
        self,
        *,
        master: str | None = None,
        spark_conf: Sequence[str] = (),
        ship: Sequence[str | Path] = (),
        read: Callable[[], Mapping[str, str | None]] = dict,
        ranks: int = 1,
        session: Session | None = None,
        patience: Patience = PATIENCE,
        cpu_isa: str = NATIVE,
        tls: str = "auto",
    ) -> None:
        """Use the active Spark session, or start one; a `UserError` within seconds says why not.

        `ship` are the user's own .py files and folders of packages, `read` tells which variables of
        the environment they read, with their values; `ranks` is how many will run at the same time,
        so that a lack of room is reported before anything starts.
        """
        # For jobs of the caller's own, too.
        self.session = session or _open(master, spark_conf, ranks)
        self.cpu_isa = cpu_isa
        leaves_host = not self.session.master.on_this_host
        self.tls = tls == "true" or (tls == "auto" and leaves_host)
        wanted = {**HASH_SEED, **variables(cpu_isa)}
        workers = self.session.environment
        self._before = {name: workers.get(name) for name in wanted}
        workers.update(wanted)
        self._patience = patience
        self._ship = tuple(Path(source) for source in ship)
        self._read = read
        self._archives: tuple[str, ...] | None = None
        self._session_s = self.session.startup_s

    def slots(self) -> int:
        """How many ranks can run at the same time, once all executors have registered."""
        return self.session.all_slots()

    def hosts(self) -> tuple[str, str]:
        """The driver's address, as Spark's executors know it."""
        return self.session.driver_host()

    def _run_ranks(self, call: GroupCall) -> GroupResult:
        began = time.monotonic()
        with self._log(call.log) as log:
            self.session.wait_for_slots(call.least or call.size)
            group = self._run(call, self._send_code(log), log, began)
        # The start of a session that is ours is part of the first process group's.
        session_s, self._session_s = self._session_s, 0.0
        return dataclasses.replace(group, engine_s=group.engine_s + session_s)

    def _run(self, call: GroupCall, code: UserCode, log: RankLog, began: float) -> GroupResult:
        function = cloudpickle.dumps(call.function)

        relay = None
        if call.log is not None and self.session.master.kind == "connect":
            relay = call.log.parent.absolute() / "relay"

        def task_at(place: Place) -> RankTask:
            return RankTask(function=function, code=code, place=place, relay=relay)

        def on_event(rank: int, event: PlainData) -> None:
            if PRINTED in event:
                log.feed(rank, str(event[PRINTED]).encode(errors="replace"))
            elif call.on_event is not None:
                call.on_event(rank, event)

        host, advertised = self.session.driver_host()
        rendezvous = Rendezvous(
            call.size,
            least=call.least,
            host=host,
            claim=call.claim,
            on_event=on_event,
            patience=self._patience,
            tls=self.tls,
        )
        with contextlib.ExitStack() as stack:
            stack.callback(rendezvous.close)
            if relay is not None:
                stack.callback(Relay(relay, rendezvous.address).close)
            address = advertised, rendezvous.address[1]
            processes = SparkProcesses(self.session, call, rendezvous, address, task_at)
            run = GroupRun(rendezvous, processes, call.max_restarts)
            if (fault := run.run()) is not None:
                if fault.retryable:
                    self.session.check_alive(0.5)  # or else all ranks died with the JVM
                raise fault.with_log(log.tail(fault.rank)).exception(run.restarts)
            return run.result(began)

    def _pool(self, call: PoolCall[Item, Result]) -> list[Result]:
        if not call.items:
            return []
        with self._log(call.log) as log:
            self.session.wait_for_slots(1)
            with PoolRun(self.session, call, self._send_code(log), log) as run:
                return run.run()

    def close(self) -> None:
        """End the session and its JVM, if they are ours."""
        for name, value in self._before.items():
            self.session.environment.pop(name, None)
            if value is not None:
                self.session.environment[name] = value
        self.session.close()

    @contextmanager
    def _log(self, path: Path | None) -> Iterator[RankLog]:
        with contextlib.closing(RankLog(path)) as rank_log, self.session.forwarding_log(path):
            yield rank_log

    def _send_code(self, log: RankLog) -> UserCode:
        """Ship packages and try them out, once; variables are read each time."""
        if self._archives is None:
            archives = ship_sources(self.session.carrier, self._ship, log.note)
            _try_out(self.session)
            self._archives = archives
        return UserCode(archives=self._archives, variables=dict(self._read()))


def _try_out(session: Session) -> None:
    """Refuse executors that cannot run our code at all; Spark would do so with a traceback."""
    count = max(session.slots(), 1)
    lacking: set[str] = set()

    def action() -> None:
        lacking.update(session.map_tasks(count, _probe()))

    began = time.monotonic()
    job = session.start(action, "sixfold: trying out the executors")
    try:
        while job.running:
            time.sleep(0.02)
            waited_s = time.monotonic() - began
            limit_s = JOIN_S if session.allocates else SCHEDULE_S
            if waited_s > limit_s and not job.active_tasks() and job.running:
                raise UserError(
                    f"Spark has run nothing within {waited_s:.0f} s: other jobs of this "
                    f"application hold all task slots of {session.master.url}; end them first"
                )
    finally:
        job.end(patience_s=0.0)
    session.check_alive(0.5)
    if job.error is not None and is_in_vain(job.error):
        raise RunError(f"Spark could not try out the executors: {explain(job.error)}")
    if job.error is not None:
        raise UserError(
            f"Spark's executors cannot run Python: {explain(job.error)}; name a Python of this "
            "version with --spark-conf spark.pyspark.python=PATH"
        )
    if lacking:
        raise UserError(sorted(lacking))


def _probe() -> Callable[[Iterable[int]], list[str]]:
    """A function that tells what an executor lacks."""

    def probe(_: Iterable[int]) -> list[str]:
        # Nested, so that it travels by value: an executor need not have sixfold to run it.
        import importlib.util
        import socket
        import sys

        missing = []
        for name in ("numpy", "torch", "sixfold.distributed.engines.spark_worker"):
            try:
                spec = importlib.util.find_spec(name)
            except ImportError:
                spec = None
            if spec is None:
                missing.append(name.partition(".")[0])
        if not missing:
            return []
        return [
            f"executor {socket.gethostname()} lacks {', '.join(missing)} ({sys.executable}): "
            "install it or name another Python with --spark-conf spark.pyspark.python=PATH"
        ]

    return probe


def _open(master: str | None, spark_conf: Sequence[str], ranks: int) -> Session:
    """A classic session, or one with the Spark Connect server that is the master."""
    url = (master or os.environ.get("SPARK_REMOTE", "")).strip()
    if not url.startswith("sc://"):
        return open_session(master, spark_conf, ranks)
    from sixfold.distributed.engines.spark_connect import open_connect

    return open_connect(url, spark_conf)
