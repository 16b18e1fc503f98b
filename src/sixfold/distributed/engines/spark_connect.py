"""A Spark Connect session to work with: DataFrame operations only, no SparkContext and no RDD.

Ranks are tasks of `mapInArrow` over a DataFrame of one row. They reach
the launcher, which is the client, at the address by which it reaches the server, or through the
run's folder (`spark_relay`).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import RunError, UserError
from sixfold.distributed.engines.engine import LOOPBACK
from sixfold.distributed.engines.scratch import scratch_folder
from sixfold.distributed.engines.spark_job import Job
from sixfold.distributed.engines.spark_master import Master
from sixfold.distributed.engines.spark_session import Session

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

_SENT = "_sixfold_artifacts"


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

    def __init__(self, session: SparkSession) -> None:
        self._session: Any = session
        host, port = self._server
        none: Any = None  # a client has no SparkContext
        super().__init__(context=none, master=Master(url=f"sc://{host}:{port}", kind="connect"))

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
        from pyspark.sql import functions

        partition = functions.spark_partition_id().alias("p")
        return int(self._session.range(0, 100_000).select(partition).distinct().count())

    def all_slots(self) -> int:
        """As `slots`."""
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
        self._begin(action, title, on_end)

    def active_tasks(self) -> int:
        """A client is not told how many of its tasks run: one, while the job runs."""
        return int(self.running)

    def _cancel(self) -> None:
        with contextlib.suppress(Exception):  # a server that is gone
            self._session.interruptTag(self._tag)

    def _work(self, action: Callable[[], object], title: str) -> None:  # noqa: ARG002
        self._session.addTag(self._tag)  # tags belong to a thread
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
