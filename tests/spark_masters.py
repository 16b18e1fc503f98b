"""Spark engines for tests: one session per master, alive for the whole test run.

A process can hold one SparkContext at a time, so each session lives in a process of its own, and a
test talks to it through an `EngineProcess`, which is an engine like any other. Callbacks run in the
test's process; `call` runs a function of the test over there.

This file is a pytest plugin (see `pytest_plugins` in conftest.py) and the program of that process.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from sixfold.core.errors import RankLostError, UserError
from sixfold.distributed.engines.engine import (
    Engine,
    GroupCall,
    GroupResult,
    Item,
    PoolCall,
    Result,
)

START_S = 90.0
"""For a process to come up on a machine that is busy with other tests."""

CLUSTER = "local-cluster[2,1,1024]"
CONNECT = "connect"


class EngineProcess(Engine):
    """A `SparkEngine` in a process of its own."""

    name = "spark"

    def __init__(self, master: str, folder: Path, *spark_conf: str) -> None:
        ours, theirs = Pipe()
        self._connection = ours
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), master, *spark_conf],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        theirs.close()
        try:
            self._answer(None, None)
        except BaseException:
            self.close()
            raise

    def slots(self) -> int:
        return int(self._ask("slots"))

    def hosts(self) -> tuple[str, str]:
        on_event, reached = self._ask("hosts")
        return str(on_event), str(reached)

    def _run_ranks(self, call: GroupCall) -> GroupResult:
        options = {
            "least": call.least,
            "max_restarts": call.max_restarts,
            "log": call.log,
            "claim": call.claim is not None,
        }
        group = self._ask(
            "group", call.function, call.size, options, claim=call.claim, on_event=call.on_event
        )
        assert isinstance(group, GroupResult)
        return group

    def _pool(self, call: PoolCall[Item, Result]) -> list[Result]:
        options = {
            "workers": call.workers,
            "retries": call.retries,
            "after": call.after,
            "log": call.log,
        }
        results = self._ask("pool", call.function, call.items, options, on_event=call.on_done)
        assert isinstance(results, list)
        return results

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `function(engine, *arguments)` in the engine's process."""
        return self._ask("call", function, arguments)

    def close(self) -> None:
        """End the process, by force if need be."""
        with contextlib.suppress(OSError):
            self._connection.close()
        try:
            self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(
        self,
        *request: Any,
        claim: Callable[[], int] | None = None,
        on_event: Callable[[int, Any], Any] | None = None,
    ) -> Any:
        self._connection.send_bytes(cloudpickle.dumps(request))
        return self._answer(claim, on_event)

    def _answer(
        self, claim: Callable[[], int] | None, on_event: Callable[[int, Any], Any] | None
    ) -> Any:
        while True:
            try:
                kind, *facts = cloudpickle.loads(self._connection.recv_bytes())
            except EOFError:
                raise AssertionError(
                    f"the engine's process died: {self.output.read_text()}"
                ) from None
            if kind == "claim" and claim is not None:
                self._connection.send_bytes(cloudpickle.dumps(claim()))
            elif kind == "event" and on_event is not None:
                on_event(*facts)
            elif kind == "done" and on_event is not None:
                self._connection.send_bytes(cloudpickle.dumps(on_event(*facts)))
            elif kind == "result":
                return facts[0]
            elif kind == "raised":
                make, arguments = facts
                raise make(*arguments)


def _serve(connection: Connection, master: str, *spark_conf: str) -> None:
    """The life of an engine's process."""
    from pyspark import cloudpickle as spark_pickle

    from sixfold.distributed.engines.spark import SparkEngine

    def send(*message: Any) -> None:
        connection.send_bytes(spark_pickle.dumps(message))

    def claim() -> int:
        send("claim")
        return int(cloudpickle.loads(connection.recv_bytes()))

    def on_event(number: int, fact: Any) -> None:
        send("event", number, fact)

    def on_done(number: int, result: Any) -> Any:
        send("done", number, result)
        return cloudpickle.loads(connection.recv_bytes())

    try:
        if master == CONNECT:
            engine = _connected()
        else:
            engine = SparkEngine(master=master, spark_conf=spark_conf)
    except Exception as error:
        send("raised", *_taken_apart(error))
        return
    with engine:
        send("result", None)
        while True:
            try:
                kind, *request = cloudpickle.loads(connection.recv_bytes())
            except EOFError:
                return
            try:
                if kind == "slots":
                    result: Any = engine.slots()
                elif kind == "hosts":
                    result = engine.hosts()
                elif kind == "group":
                    function, size, options = request
                    options["claim"] = claim if options["claim"] else None
                    result = engine.run_ranks(function, size, on_event=on_event, **options)
                elif kind == "pool":
                    function, items, options = request
                    result = engine.pool(function, items, on_done=on_done, **options)
                else:
                    result = request[0](engine, *request[1])
                send("result", result)
            except Exception as error:
                send("raised", *_taken_apart(error))


def _connected() -> Any:
    """An engine on a session with a Spark Connect server of its own, of two slots."""
    from pyspark.sql import SparkSession

    from sixfold.distributed.engines.spark import SparkEngine
    from sixfold.distributed.engines.spark_connect import ConnectSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_TESTING"] = "1"  # a port that is free, rather than 15002
    session = SparkSession.builder.remote("local[2]").getOrCreate()
    engine = SparkEngine(session=ConnectSession(session))
    engine.connected = session  # type: ignore[attr-defined]
    return engine


def _taken_apart(error: Exception) -> tuple[type[Exception], tuple[Any, ...]]:
    """An error's class and what it is made from."""
    if isinstance(error, RankLostError):
        return type(error), (error.failure, error.restarts)
    if isinstance(error, UserError):
        return type(error), (error.problems,)
    return type(error), error.args


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Divide tests among the processes of `pytest -n 2 --dist loadgroup`.

    One process runs all tests on clusters of several JVMs, and one all others on Spark, so that
    each master is started once; of what is left one process runs all of a file, so that what a
    file's tests share is made once. Those on Spark, which take longest, come first.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: item.get_closest_marker("spark") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if groups are not heeded: every process would then start every master."""
    grouped = getattr(session.config.option, "loadgroup", False)
    if grouped and session.items and "@" not in session.items[0].nodeid:
        raise pytest.UsageError("pytest-xdist does not group tests with this version of pytest")


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("spark") is None:
        return item.path.as_posix()
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    words = " ".join(map(str, [*getattr(item, "fixturenames", ()), *parameters]))
    return "spark cluster" if re.search("cluster|standalone|spark_bare", words) else "spark"


def _need_spark() -> None:
    pytest.importorskip("pyspark")
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime")


@contextlib.contextmanager
def _engine(
    master: str, factory: pytest.TempPathFactory, *spark_conf: str
) -> Iterator[EngineProcess]:
    _need_spark()
    folder = factory.mktemp("spark")
    with contextlib.closing(EngineProcess(master, folder, *spark_conf)) as engine:
        yield engine
    assert engine.output.read_text() == ""  # Spark prints nothing, nor does Python


@pytest.fixture(scope="session")
def spark_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine with two task slots in one JVM."""
    with _engine("local[2]", tmp_path_factory) as engine:
        yield engine


@pytest.fixture
def spark_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine with three task slots, for one test."""
    with _engine("local[3]", tmp_path_factory) as engine:
        yield engine


@pytest.fixture(scope="session")
def spark_connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine over Spark Connect, to a server with two task slots."""
    _need_spark()
    folder = tmp_path_factory.mktemp("spark")
    with contextlib.closing(EngineProcess(CONNECT, folder)) as engine:
        yield engine


@pytest.fixture(scope="session", params=["classic", "connect"])
def spark_any(request: pytest.FixtureRequest) -> EngineProcess:
    """An engine in a classic session, and one over Spark Connect."""
    name = "spark_local" if request.param == "classic" else "spark_connect"
    engine: EngineProcess = request.getfixturevalue(name)
    return engine


@pytest.fixture(scope="session")
def spark_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine with two executors, each a JVM of its own with one slot."""
    with _engine(CLUSTER, tmp_path_factory) as engine:
        yield engine


@pytest.fixture(scope="session")
def spark_bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Two executors with torch and NumPy, and no Sixfold but what is sent to them."""
    python = tmp_path_factory.mktemp("python") / "python"
    # Without `site` nothing installed in place is seen; libraries are, and what Spark adds.
    python.write_text(
        "#!/bin/sh\n"
        f"PYTHONPATH={sysconfig.get_path('purelib')}:"
        "$(echo \"$PYTHONPATH\" | tr : '\\n' | grep -i spark | paste -sd :)\n"
        f'export PYTHONPATH; exec {sys.executable} -S "$@"\n'
    )
    python.chmod(0o755)
    with _engine(CLUSTER, tmp_path_factory, f"spark.pyspark.python={python}") as engine:
        yield engine


@pytest.fixture(scope="session")
def spark_standalone(
    standalone_master: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    """An engine on a real standalone cluster with two workers of one core each."""
    with _engine(standalone_master, tmp_path_factory) as engine:
        yield engine


@pytest.fixture(scope="session")
def standalone_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the master of a standalone cluster that is started for the test run."""
    _need_spark()
    with standalone_cluster(tmp_path_factory.mktemp("standalone"), workers=2) as url:
        yield url


@contextlib.contextmanager
def standalone_cluster(folder: Path, workers: int, *options: str) -> Iterator[str]:
    """URL of the master of a standalone cluster with so many workers of one core each.

    `options` are Java's; the workers have addresses of their own, 127.0.0.1 and up.
    """
    with contextlib.ExitStack() as stack:
        log = _daemon(stack, folder, "master.Master", "--host", "127.0.0.1", "--webui-port", "0")
        url = _wait_for(log, r"Starting Spark master at (spark://\S+)")
        logs = [
            _daemon(
                stack,
                folder,
                "worker.Worker",
                *(
                    "--host",
                    f"127.0.0.{number + 1}",
                    "--webui-port",
                    "0",
                    "--cores",
                    "1",
                    "--memory",
                    "1g",
                ),
                *("--work-dir", str(folder / f"work{number}"), url),
                options=options,
            )
            for number in range(workers)
        ]
        for log in logs:
            _wait_for(log, r"Successfully registered with master (\S+)")
        yield url


def _daemon(
    stack: contextlib.ExitStack,
    folder: Path,
    name: str,
    *arguments: str,
    options: Sequence[str] = (),
) -> Path:
    """Start a master or a worker on a port of its own choice; its log."""
    import pyspark

    home = Path(next(iter(pyspark.__path__)))
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else "java"
    environment = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment["SPARK_SCALA_VERSION"] = "2.13"  # otherwise set by Spark's scripts
    command = [str(java), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command += [*options, "-cp", f"{home}/jars/*", f"org.apache.spark.deploy.{name}"]
    log = folder / f"{name}-{len(list(folder.glob('*.txt')))}.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return log


def _wait_for(log: Path, pattern: str) -> str:
    deadline = time.monotonic() + START_S
    while (found := re.search(pattern, log.read_text())) is None:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found[1]


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), *sys.argv[2:])
