"""The start of a SparkContext and its JVM, and their end, which leaves nothing behind.

Java prints to a file, and talks over the loopback interface where all of it is on this host.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.find_spark_home import _find_spark_home
from pyspark.java_gateway import launch_gateway

from sixfold.core.errors import UserError
from sixfold.distributed.engines.engine import LOOPBACK
from sixfold.distributed.engines.spark_job import explain
from sixfold.distributed.engines.spark_master import Master, default_settings
from sixfold.distributed.engines.spark_package import import_path_kept
from sixfold.distributed.engines.spark_reach import Reached

REGISTER_S = 60.0
"""For a Spark master to accept the application: measured 2 s on an idle host, 8 s on a busy one,
the start of the JVM excluded."""

SILENT_S = 12.0  # the same for a server of which it is not known that it is Spark
STOP_S = 10.0  # for a JVM to end by itself, which takes 0.3 s

_SMALL_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""For JVMs that schedule and start Python and do nothing else: half the processor time until the
first process group has run (7 instead of 14 s, measured), and fewer threads on the ranks' cores."""

AT_LAUNCH = {
    "spark.app.name": "sixfold",
    "spark.driver.extraJavaOptions": _SMALL_JVM,
    "spark.ui.showConsoleProgress": "false",
}
"""Ours that must be known when the JVM starts, or that spark-submit would choose otherwise."""

OURS = {
    "spark.ui.enabled": "false",
    "spark.executor.extraJavaOptions": _SMALL_JVM,
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.MKL_NUM_THREADS": "1",
    # What was lost is repeated by the engine, which counts.
    "spark.task.maxFailures": "1",
}
"""Settings where neither the user nor Spark's own files say otherwise."""


class Start:
    """The start of a session, in a thread, so that it can time out and be interrupted."""

    def __init__(
        self,
        master: Master | None,
        settings: Mapping[str, str],
        reached: Reached | None,
        log: Path,
    ) -> None:
        self.log = log  # file to which the JVM writes
        self.process: subprocess.Popen[bytes] | None = None  # the JVM, if it was started here
        self._master = master
        self._reached = reached
        self._settings = dict(settings)
        self._gateway: Any = SparkContext._gateway
        self._context: SparkContext | None = None
        self._error: BaseException | None = None
        self._work_folder: Path | None = None
        self._cancelled = False
        self._launched = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="sixfold-spark-start")
        if master is not None:
            self._settings["spark.master"] = master.url
            host = LOOPBACK if master.on_this_host else ""
            if reached is not None:
                host = reached.local_address
            if host and "SPARK_LOCAL_IP" not in os.environ:
                self._settings.setdefault("spark.driver.host", host)
                if host == LOOPBACK:
                    self._settings.setdefault("spark.driver.bindAddress", host)

    def run(self, cleanup: contextlib.ExitStack) -> SparkContext:
        """Start; what undoes it is pushed onto `cleanup`."""
        loopback = self._master is not None and self._master.on_this_host
        # Without it Java takes the host's name for its address, the workers of a local-cluster too.
        cleanup.enter_context(_environment({"SPARK_LOCAL_IP": LOOPBACK} if loopback else {}))
        self.log.touch()
        cleanup.callback(self._stop)
        self._thread.start()
        self._launched.wait()
        patience_s = None
        if self._reached is not None:
            patience_s = REGISTER_S if self._reached.is_spark else SILENT_S
        self._thread.join(patience_s)
        if self._context is not None:
            return self._context
        if self._thread.is_alive():
            raise UserError(
                f"the Spark master {self._settings['spark.master']} can be connected to but did "
                f"not accept the application within {patience_s:g} s: check that this is the "
                "port for applications (usually 7077, not that of a web page), that the master "
                f"is not in standby and that its Spark is of version {pyspark.__version__}"
            )
        raise UserError(f"Spark could not be started: {self._reason()}")

    def _work(self) -> None:
        try:
            if self._gateway is None:
                self._launch()
            self._launched.set()
            if not self._cancelled:
                self._connect()
        except BaseException as error:  # whatever it is, the thread that waits reports it
            with warnings.catch_warnings():
                # Its traceback holds the pipe of a JVM that did not come up: let go of it.
                warnings.simplefilter("ignore", ResourceWarning)
                self._error = error.with_traceback(None)
        finally:
            self._launched.set()

    def _launch(self) -> None:
        """Start the JVM; its settings include those of Spark's own files."""
        defaults = default_settings(os.environ, Path(_find_spark_home()))
        ours = {key: value for key, value in AT_LAUNCH.items() if key not in defaults}
        conf = SparkConf(loadDefaults=False)
        for key, value in (ours | self._settings).items():
            conf.set(key, value)
        with self.log.open("ab") as output:
            options = {"stdout": output, "stderr": subprocess.STDOUT}
            self._gateway = launch_gateway(conf, options)
        self.process = self._gateway.proc  # None where spark-submit has started it

    def _connect(self) -> None:
        """Create the context with the user's settings, else those of Spark's files, else ours."""
        conf = SparkConf(_jvm=self._gateway.jvm)
        for key, value in self._settings.items():
            conf.set(key, value)
        for key, value in OURS.items():
            conf.setIfMissing(key, value)
        with import_path_kept():
            context = SparkContext(conf=conf, gateway=self._gateway)
        # It would print a traceback when the JVM is lost.
        context._accumulatorServer.handle_error = lambda *_: None
        python = conf.get("spark.pyspark.python")
        if python is not None:
            context.pythonExec = python
        elif "PYSPARK_PYTHON" not in os.environ:
            context.pythonExec = sys.executable
        if self._master is not None and self._master.kind == "local-cluster":
            # Its workers write into Spark's own folder, and leave it to others to clear up.
            self._work_folder = Path(_find_spark_home(), "work", str(context.applicationId))
        self._context = context

    def _reason(self) -> str:
        """The most telling line: of the Java exception, or else of what the JVM has printed."""
        if self._error is not None and hasattr(self._error, "java_exception"):
            return explain(self._error)
        lines = self.log.read_text(errors="replace").splitlines()
        telling = [line.strip() for line in lines if line.strip() and "WARN" not in line]
        return "; ".join(telling[:2]) or f"{type(self._error).__name__}: {self._error}"

    def _stop(self) -> None:
        """End the context, and the JVM if it was started here."""
        self._cancelled = True
        if self._thread.is_alive():
            self._launched.wait(STOP_S)
            if self.process is not None:
                self.process.kill()  # wakes the thread that waits for Java's answer
            self._thread.join(STOP_S)
        if self._context is not None:
            server = self._context._accumulatorServer
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")  # a JVM that was killed cannot be stopped cleanly
                self._context.stop()
            if server is not None:
                server.server_close()
        if self.process is not None:
            _end_jvm(self._gateway, self.process)
        if self._work_folder is not None:
            shutil.rmtree(self._work_folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._work_folder.parent.rmdir()


def _end_jvm(gateway: Any, process: subprocess.Popen[bytes]) -> None:
    """Let the JVM see the end of its input, at which it ends; kill it if it does not."""
    with contextlib.suppress(Exception):  # whatever py4j says about a JVM that is gone
        gateway.shutdown()
    if SparkContext._gateway is gateway:
        SparkContext._gateway = SparkContext._jvm = None
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _environment(extra: Mapping[str, str]) -> Iterator[None]:
    """The process's environment as it was, at the end; pyspark leaves things in it."""
    before = dict(os.environ)
    for key, value in extra.items():
        os.environ.setdefault(key, value)
    try:
        yield
    finally:
        ours = {*extra, "SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE"}
        for key in ours - before.keys():
            os.environ.pop(key, None)
