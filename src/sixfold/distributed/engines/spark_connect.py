"""A Spark Connect session to work with: DataFrame operations only, no SparkContext and no RDD.

Ranks are tasks of `mapInArrow` over a DataFrame of one row. They reach
the launcher, which is the client, at the address by which it reaches the server, or through the
run's folder (`spark_relay`).
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sixfold.core.errors import RunError, UserError
from sixfold.distributed.engines.engine import LOOPBACK
from sixfold.distributed.engines.scratch import scratch_folder
from sixfold.distributed.engines.spark_job import Job
from sixfold.distributed.engines.spark_master import Master, brief, parse_settings
from sixfold.distributed.engines.spark_reach import REACH_S
from sixfold.distributed.engines.spark_session import Session

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

_SENT = "_sixfold_artifacts"

ANSWER_S = 30.0  # for a server that can be connected to: the first session of one takes seconds


def open_connect(url: str, spark_conf: Iterable[str] = ()) -> ConnectSession:
    """A new session with the Spark Connect server at `url`, ended with the engine.

    A `UserError` if there is none, within 5 s if nothing listens there.
    """
    place = urlsplit(url)
    try:
        host, port = place.hostname or "", place.port or 15002
    except ValueError:
        host, port = "", 0
    if not host or re.search(r"\s", url):
        raise UserError(f"Spark master {url!r}: malformed: expected sc://HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=REACH_S).close()
    except OSError as error:
        raise UserError(
            f"the Spark Connect server {url} cannot be reached ({host}:{port}: {brief(error)}): "
            "check that it runs (sbin/start-connect-server.sh) and that this is its port"
        ) from error
    settings, found = parse_settings(spark_conf), list[Any]()

    def begin() -> None:
        try:
            from pyspark.sql.connect.session import SparkSession

            session = SparkSession.builder.remote(url).create()
            for key, value in settings.items():
                session.conf.set(key, value)
            found.append(session if session.version else None)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=begin, daemon=True, name="sixfold-spark-connect")
    thread.start()
    thread.join(ANSWER_S)
    session = found[0] if found else None
    if session is None or isinstance(session, Exception):
        reason = brief(session).split("\n")[0] if session else f"no answer within {ANSWER_S:g} s"
        raise UserError(f"no session with the Spark Connect server {url}: {reason}")
    cleanup = contextlib.ExitStack()
    cleanup.callback(session.stop)
    return ConnectSession(session, cleanup)


class Artifacts:
    """Brings files to executors as a session's artifacts; see `spark_package.Carrier`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        if not hasattr(session, _SENT):
            folder = contextlib.ExitStack()
            setattr(session, _SENT, ([], folder.enter_context(scratch_folder()), folder))
        self._sent: list[str]
        self._sent, self._temp_dir, _ = getattr(session, _SENT)

    @property
    def listFiles(self) -> list[str]:  # noqa: N802 - SparkContext's names
        """Names of the files that this process has sent."""
        return self._sent

    def addPyFile(self, path: str) -> None:  # noqa: N802
        """Send a file from which Python may import."""
        self._session.addArtifacts(path, pyfile=True)
        self._sent.append(path)


class ConnectSession(Session):
    """A session with a Spark Connect server, which stays open."""

    def __init__(self, session: SparkSession, cleanup: contextlib.ExitStack | None = None) -> None:
        self._session: Any = session
        host, port = self._server
        none: Any = None  # a client has no SparkContext
        master = Master(url=f"sc://{host}:{port}", kind="connect")
        super().__init__(context=none, master=master, cleanup=cleanup)

    @cached_property
    def _server(self) -> tuple[str, int]:
        builder = self._session.client._builder
        endpoint = str(builder.endpoint)
        host, _, port = endpoint.rpartition(":")
        return host.strip("[]") or "localhost", int(port) if port.isdigit() else 15002

    @property
    def carrier(self) -> Artifacts:
        """The session's artifacts."""
        return Artifacts(self._session)

    @property
    def environment(self) -> dict[str, str]:
        """None that a client could set: a worker is told before it loads torch, or refuses."""
        return {}

    def setting(self, key: str, default: str) -> str:
        """A Spark setting as the server knows it."""
        return str(self._session.conf.get(key, default))

    def driver_host(self) -> tuple[str, str]:
        """The client's own address on the way to the server, or the loopback if that is here."""
        host, port = self._server
        try:
            with socket.create_connection((host, port), timeout=5.0) as connection:
                own = str(connection.getsockname()[0])
        except OSError as error:
            raise RunError(f"the Spark Connect server {host}:{port} is gone: {error}") from None
        return (LOOPBACK, LOOPBACK) if own.startswith("127.") or own == "::1" else (own, own)

    def most_slots(self) -> int | None:
        """Nobody knows; executors may come."""
        return None

    def slots(self) -> int:
        """How many tasks the cluster runs at a time, by its default parallelism."""
        return self._parallelism

    @cached_property
    def _parallelism(self) -> int:
        from pyspark.sql.connect import functions

        partition = functions.spark_partition_id().alias("p")
        return int(self._session.range(0, 100_000).select(partition).distinct().count())

    def all_slots(self) -> int:
        return self.slots()

    def wait_for_slots(self, size: int) -> None:
        """Refuse more ranks than the cluster runs at a time."""
        if size > self.slots():
            raise UserError(
                f"--workers {size}: {self.master.url} runs {self.slots()} tasks at a time: use "
                "fewer workers, or give its cluster more cores"
            )

    def check_alive(self, patience_s: float = 0.0) -> None:  # noqa: ARG002 - as in Session
        """Raise a `RunError` if the server can no longer be called."""
        self.driver_host()

    @contextmanager
    def forwarding_log(self, path: Path | None) -> Iterator[None]:  # noqa: ARG002
        """The server's log is its own."""
        yield

    def start(
        self,
        action: Callable[[], object],
        title: str,
        on_end: Callable[[Job], None] = lambda _: None,
    ) -> Job:
        """Start a job in a thread, tagged, so that it can be interrupted alone."""
        return ConnectJob(self._session, action, title, on_end)

    def map_tasks(
        self, count: int, function: Callable[[Iterable[Any]], Iterable[Any]]
    ) -> list[Any]:
        """Run a function in so many tasks; what they yield, which is plain data."""
        tasks = self._session.range(0, count, 1, count)
        rows = tasks.mapInArrow(_in_arrow(function), "value string").collect()
        return [json.loads(row[0]) for row in rows]


class ConnectJob(Job):
    """A job of a Connect session in a thread of its own."""

    def __init__(
        self,
        session: Any,
        action: Callable[[], object],
        title: str,
        on_end: Callable[[Job], None],
    ) -> None:
        self.error, self.is_unwanted = None, False
        self._session = session
        self._tag = f"sixfold-{secrets.token_hex(8)}"
        self._tags = {*session.getTags(), self._tag}
        self._begin(action, title, on_end)

    def active_tasks(self) -> int:
        """A client is not told how many of its tasks run: one, while the job runs."""
        return int(self.running)

    def _cancel(self) -> None:
        with contextlib.suppress(Exception):  # a server that is gone
            self._session.interruptTag(self._tag)

    def _work(self, action: Callable[[], object], title: str) -> None:  # noqa: ARG002
        for tag in self._tags:  # which belong to a thread
            self._session.addTag(tag)
        action()


def _in_arrow(function: Callable[[Iterable[Any]], Iterable[Any]]) -> Any:
    """A task's function as `mapInArrow` takes it."""

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        # Nested, so that it travels by value.
        import json as texts

        import pyarrow

        for _ in batches:
            pass
        for value in function(()):
            yield pyarrow.RecordBatch.from_pydict({"value": [texts.dumps(value)]})

    return run
