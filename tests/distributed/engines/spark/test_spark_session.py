from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.spark_masters import EngineProcess, standalone_cluster

from sixfold.core.errors import RunError, UserError

pytest.importorskip("pyspark")

from sixfold.distributed.engines.spark import SparkEngine
from sixfold.distributed.engines.spark_master import parse_master
from sixfold.distributed.engines.spark_session import Session

pytestmark = pytest.mark.spark

Vanish = Callable[..., None]


def test_everything_that_is_wrong_is_told_before_a_jvm_starts() -> None:
    with pytest.raises(UserError) as caught:
        SparkEngine(master="loca[2]", spark_conf=["nonsense"])
    assert len(caught.value.problems) == 2


def test_without_a_master_or_a_session_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYSPARK_SUBMIT_ARGS", "MASTER", "SPARK_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="give --master"):
        SparkEngine()


def test_without_java_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UserError, match="Spark needs Java") as caught:
        SparkEngine(master="local[2]")
    assert len(str(caught.value).splitlines()) == 1


def test_an_unreachable_master_is_told_within_seconds_and_without_a_jvm() -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match="cannot be reached") as caught:
        SparkEngine(master="spark://127.0.0.1:1")
    assert time.monotonic() - began < 5.0
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        (["spark.task.cpus=2"], "can run no task: one takes 2 cores"),
        (
            [
                "spark.executor.memory=900g",
                "spark.scheduler.maxRegisteredResourcesWaitingTime=2s",
            ],
            "no executor of .* has registered within 2 s",
        ),
    ],
)
@pytest.mark.full
def test_a_cluster_without_room_for_a_task_is_told_soon(
    tmp_path: Path, conf: list[str], words: str
) -> None:
    # A cluster of its own: no other session holds its cores.
    with (
        standalone_cluster(tmp_path, workers=1) as master,
        SparkEngine(master=master, spark_conf=conf) as engine,
    ):
        began = time.monotonic()
        with pytest.raises(UserError, match=words):
            engine.slots()
        assert time.monotonic() - began < 15.0


def test_an_active_session_is_used_and_cannot_be_given_other_settings(
    spark_local: EngineProcess,
) -> None:
    def run(engine: Any) -> list[str]:
        with SparkEngine(master="local[2]", spark_conf=["spark.ui.enabled=false"]) as other:
            assert other.session.context is engine.session.context
        try:
            SparkEngine(master="local[3]", spark_conf=["spark.ui.enabled=true"])
        except UserError as error:
            return list(error.problems)
        return []

    master, setting = spark_local.call(run)
    assert "a Spark session with master local[2] is active" in master
    assert "spark.ui.enabled is false" in setting


@pytest.mark.full
def test_a_local_session_of_the_user_runs_the_users_python(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 3\n")  # what Spark would take
    (tmp_path / "python3").chmod(0o755)
    script = """
from pyspark.sql import SparkSession
from sixfold.distributed.engines.spark import SparkEngine
session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
with SparkEngine() as engine:
    print(list(engine.pool(abs, [-3], workers=1)))
session.stop()
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYSPARK_PYTHON"}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert "3" in done.stdout, done.stderr[-2000:]


def test_executors_without_python_are_told(spark_local: EngineProcess) -> None:
    def run(engine: Any) -> str:
        context = engine.session.context
        python, context.pythonExec = context.pythonExec, "/nowhere/python"
        try:
            with SparkEngine() as other:
                other.pool(abs, [1], workers=1)
        except UserError as error:
            return str(error)
        finally:
            context.pythonExec = python
        return ""

    message = spark_local.call(run)
    assert 'Cannot run program "/nowhere/python"' in message
    assert "spark.pyspark.python" in message
    assert len(message.splitlines()) == 1


def test_executors_without_our_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from sixfold.distributed.engines.spark import _probe

    assert _probe()([]) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = _probe()([])
    assert f"executor {socket.gethostname()} lacks numpy, torch, sixfold" in problem
    assert sys.executable in problem


SCRIPT = """
import os, sys, time
from sixfold.distributed.engines.spark import SparkEngine
from sixfold.distributed.engines.spark_master import parse_master
from sixfold.distributed.engines.spark_session import Session

def work(world):
    world.report({"pid": os.getpid()})
    print("in the log")
    while True:
        world.barrier()
        time.sleep(0.01)

def main():
    with SparkEngine(master="local[2]") as engine:
        print("jvm", engine.session.process.pid, flush=True)
        engine.run_ranks(
            work, 2, on_event=lambda rank, event: print("rank", event["pid"], flush=True)
        )

try:
    main()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0], flush=True)
    sys.exit(1)
"""


class Script:
    """A program that runs a process group for ever; what it prints, and all of its processes."""

    def __init__(self, folder: Path) -> None:
        path = folder / "script.py"
        path.write_text(textwrap.dedent(SCRIPT))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline().split() for _ in range(3)]
        assert [line[0] for line in lines] == ["jvm", "rank", "rank"], lines
        self.jvm = int(lines[0][1])
        self.all = [process.pid for process in psutil.Process(self.process.pid).children(True)]
        assert {int(line[1]) for line in lines} < set(self.all)

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output


@pytest.mark.full
def test_ctrl_c_ends_ranks_and_jvm_and_goes_on(tmp_path: Path, vanish: Vanish) -> None:
    script = Script(tmp_path)
    os.killpg(script.process.pid, signal.SIGINT)  # a terminal signals all of its group
    assert script.end() == (130, "interrupted\n")
    vanish(*script.all)


@pytest.mark.full
def test_the_launchers_death_ends_everything(tmp_path: Path, vanish: Vanish) -> None:
    script = Script(tmp_path)
    script.process.kill()
    script.end()
    vanish(*script.all, timeout_s=15.0)


@pytest.mark.full
def test_the_death_of_the_jvm_is_told(tmp_path: Path, vanish: Vanish) -> None:
    script = Script(tmp_path)
    os.kill(script.jvm, signal.SIGKILL)
    status, output = script.end()
    assert status == 1
    assert output.startswith("RunError the JVM of Spark's driver was lost: killed by signal 9")
    vanish(*script.all)


@pytest.mark.full
def test_a_server_that_is_no_spark_master_is_told(vanish: Vanish) -> None:
    before = set(psutil.Process().children())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match="did not accept the application"):
            SparkEngine(master=f"spark://127.0.0.1:{port}")
    vanish(*[process.pid for process in set(psutil.Process().children()) - before])


@pytest.mark.full
def test_a_jvm_that_does_not_start_is_told() -> None:
    with pytest.raises(UserError, match="Invalid maximum heap size"):
        SparkEngine(master="local[1]", spark_conf=["spark.driver.memory=zz"])


def test_an_application_that_the_master_removed_is_told_with_sparks_reason(tmp_path: Path) -> None:
    """Such as when ten executors in a row could not be started."""

    class Stopped:
        def sc(self) -> Stopped:
            return self

        def isStopped(self) -> bool:  # noqa: N802  Spark's name
            return True

    class Context:
        _jsc = Stopped()

    log = tmp_path / "jvm.txt"
    log.write_text("12:00:00 INFO all is well\n12:00:01 ERROR Master removed our application\n")
    master = parse_master("spark://somewhere:7077")
    session = Session(context=Context(), master=master, log=log)
    with pytest.raises(RunError, match=r"ended the application\n.*Master removed our application"):
        session.wait_for_slots(2)
