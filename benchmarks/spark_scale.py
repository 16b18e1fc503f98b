"""Executors of a standalone cluster come and go within one training: 2, 5, 1 and 3 of them.

Dynamic allocation is on; with --connect the training is started from a Spark Connect client. Every
layer waits instead of computing (`Slow`), so that a machine of few cores shows how images/s follow
the ranks. The weights must be those of one local worker.

python benchmarks/spark_scale.py [--connect]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyspark
from torch import Tensor, nn

import sixfold
from sixfold.core.run_directory import read_json_lines

COUNTS = (2, 5, 1, 3)
WAIT_S = 0.005  # of a forward pass over one logical shard
SETTINGS: dict[str, Any] = {
    "model": "benchmarks.spark_scale:Slow",
    "data": "synthetic:400x3x8x8",
    "batch_size": 64,
    "shards": 64,
    "lr": 0.001,
    "evaluate_every": 0.0,
    "checkpoint_every": 100_000,  # so that nothing could come from there
}


class Wait(nn.Module):
    """Stands for work on a device of which every rank has one."""

    def forward(self, x: Tensor) -> Tensor:
        """Wait."""
        time.sleep(WAIT_S)
        return x * 1.0


class Slow(nn.Sequential):
    """A small network that takes its time."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), Wait(), nn.Flatten(), nn.Linear(144, 10))


class Cluster:
    """A standalone master, and workers of one core each."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._home = folder, Path(next(iter(pyspark.__path__)))
        self._master = self._start("master.Master", "master")
        self.url = ""
        while not self.url:
            time.sleep(0.1)
            words = (folder / "master.txt").read_text().split()
            self.url = next((word for word in words if word.startswith("spark://")), "")
        self._workers: list[subprocess.Popen[bytes]] = []

    def resize(self, count: int) -> None:
        """Start or kill workers, and the executors of those with them."""
        while len(self._workers) > count:
            self._kill(self._workers.pop(0))
        while len(self._workers) < count:
            number = len(list(self._folder.iterdir()))
            place = ("--work-dir", str(self._folder / f"work{number}"), self.url)
            size = ("--cores", "1", "--memory", "600m")
            self._workers.append(self._start("worker.Worker", f"worker{number}", *size, *place))

    def close(self) -> None:
        """End all."""
        self.resize(0)
        self._kill(self._master)

    def _start(self, name: str, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        java = Path(os.environ.get("JAVA_HOME", "/usr"), "bin", "java")
        command = [str(java), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-cp", f"{self._home}/jars/*", f"org.apache.spark.deploy.{name}"]
        command += ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", *arguments]
        home = {"SPARK_HOME": str(self._home), "SPARK_SCALA_VERSION": "2.13"}
        with (self._folder / f"{log}.txt").open("wb") as output:
            return subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | home | {"SPARK_LOCAL_IP": "127.0.0.1"},
            )

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


CONF = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.maxExecutors": "5",
    "spark.executor.cores": "1",
    "spark.executor.memory": "500m",
}

_SERVER = """
import sys
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession
conf = SparkConf().setAll([word.split("=", 1) for word in sys.argv[1:]])
SparkSession(SparkContext(conf=conf))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def connect_server(master: str, log: Path) -> Iterator[str]:
    """A Spark Connect server on a master, in a process of its own; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    conf = CONF | {"spark.master": master, "spark.driver.host": "127.0.0.1"}
    conf |= {"spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin"}
    conf |= {"spark.connect.grpc.binding.port": str(port), "spark.ui.enabled": "false"}
    command = [sys.executable, "-c", _SERVER, *(f"{key}={value}" for key, value in conf.items())]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    pipe = subprocess.PIPE
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=output, env=environment
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            raise SystemExit(log.read_text())
        try:
            yield f"sc://127.0.0.1:{port}"
        finally:
            server.stdin.close()


class Director:
    """Resizes the cluster once so many ranks are at work, after so many steps with them."""

    def __init__(self, cluster: Cluster, steps: int) -> None:
        self._cluster, self._steps = cluster, steps
        self._left = list(COUNTS)
        self._ranks = 0
        self._since = 0
        self._next(0)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Hear what happens."""
        if event["kind"] == "rank":
            self._ranks, self._since = event["of"], 0
        elif event["kind"] == "progress":
            self._since = self._since or event["step"]
            enough = event["step"] - self._since >= self._steps
            if enough and self._ranks == self._wanted and self._left:
                self._next(event["step"])

    def _next(self, step: int) -> None:
        self._wanted, self._since = self._left.pop(0), 0
        print(f"after step {step}: {self._wanted} executors", flush=True)
        threading.Thread(target=self._cluster.resize, args=[self._wanted], daemon=True).start()


def main() -> None:
    """Train while executors come and go, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--each", type=int, default=60, help="steps with each number of executors")
    parser.add_argument("--connect", action="store_true", help="from a Spark Connect client")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(contextlib.closing(Cluster(folder)))
            spark: dict[str, Any] = {"engine": "spark", "workers": "1:5"}
            if options.connect:
                server = connect_server(cluster.url, folder / "server.txt")
                spark |= {"master": stack.enter_context(server)}
            else:
                conf = [f"{key}={value}" for key, value in CONF.items()]
                spark |= {"master": cluster.url, "spark_conf": conf}
            config = sixfold.configure(**SETTINGS, **spark, steps=options.steps, out=f"{name}/run")
            found = sixfold.train(config, on_event=Director(cluster, options.each))
        speeds = [
            (line["step"], line["images_per_s"])
            for line in read_json_lines(folder / "run" / "metrics.jsonl")
            if "images_per_s" in line
        ]
        ends = [view["first_step"] for view in found.views[1:]] + [options.steps + 1]
        for view, end in zip(found.views, ends, strict=True):
            own = [speed for step, speed in speeds if view["first_step"] < step < end]
            if own:
                print(
                    f"{view['ranks']} ranks from step {view['first_step']}: "
                    f"{statistics.median(own):.0f} images/s, stall {view['stall_s']:.3f} s"
                )
        local = sixfold.configure(
            **SETTINGS, engine="local", workers=1, steps=options.steps, out=f"{name}/local"
        )
        same = sixfold.train(local).weights_sha256 == found.weights_sha256
        print(
            f"{len(found.views)} views, {found.lost_steps} steps made again, "
            f"{found.restarts} ranks replaced, {'same' if same else 'OTHER'} weights as one worker"
        )


if __name__ == "__main__":
    main()
