"""Two hosts with a link that gets slower: does the plan change, and is it right each time?

Two network namespaces stand for hosts: each has its own name, its own processes (so that no memory
is found to be common) and one core's worth of a Spark worker; a pair of virtual interfaces joins
them, limited by a token bucket (tc tbf). A real standalone master and two workers run in them. At
every rate `sixfold plan` calibrates and predicts over Spark; then every way is trained for some
steps, and the times of a batch are set beside the predictions. Needs root, iproute2, Java, pyspark.

python benchmarks/two_hosts.py --rates 10gbit,1gbit,100mbit
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HOSTS = {"sixfold-a": "10.77.0.1", "sixfold-b": "10.77.0.2"}
DRIVER, OTHER = HOSTS
MASTER = f"spark://{HOSTS[DRIVER]}:7077"
START_S = 120.0
RUN_S = 1.5
LOCAL_STEPS = 8


def missing() -> list[str]:
    """What this machine lacks for it."""
    found = [f"{name} is not there" for name in ("ip", "tc", "unshare", "java") if not _has(name)]
    if os.geteuid() != 0:
        found.append("it takes root to make network namespaces")
    if found:
        return found
    probe = subprocess.run(["ip", "netns", "add", "sixfold-probe"], capture_output=True, text=True)
    if probe.returncode != 0:
        return [f"ip netns add: {probe.stderr.strip()}"]
    subprocess.run(["ip", "netns", "del", "sixfold-probe"], check=True)
    return []


def _has(name: str) -> bool:
    return shutil.which(name) is not None


def run(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True)


def inside(host: str, *words: str) -> list[str]:
    """The command that runs another one on a host, whose name is known to all of them."""
    script = f'hostname {host} && mount --bind "$SIXFOLD_HOSTS" /etc/hosts && exec "$@"'
    return [
        "ip", "netns", "exec", host,
        "unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child",
        "sh", "-c", script, "sh", *words,
    ]  # fmt: skip


@contextmanager
def two_hosts(folder: Path) -> Iterator[None]:
    """The namespaces and the link between them."""
    made: list[str] = []
    names = folder / "hosts"
    lines = [f"{address} {host}" for host, address in HOSTS.items()]
    names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    os.environ["SIXFOLD_HOSTS"] = str(names)
    try:
        for host in HOSTS:
            run("ip", "netns", "add", host)
            made.append(host)
        run("ip", "link", "add", "eth-a", "netns", DRIVER, "type", "veth",
            "peer", "name", "eth-b", "netns", OTHER)  # fmt: skip
        for (host, address), device in zip(HOSTS.items(), ("eth-a", "eth-b"), strict=True):
            run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", device)
            run("ip", "-n", host, "link", "set", device, "up")
            run("ip", "-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in made:
            subprocess.run(["ip", "netns", "del", host], check=False)


BURSTS = {"10gbit": "5mb", "1gbit": "500kb", "100mbit": "64kb"}
"""What passes at once before the rate holds: little more than the kernel's clock needs, so that
calibration with single messages and training meet the same link."""


def limit(rate: str) -> None:
    """Give the link a rate, both ways."""
    for host, device in zip(HOSTS, ("eth-a", "eth-b"), strict=True):
        run("tc", "-n", host, "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate,
            "burst", BURSTS.get(rate, "256kb"), "latency", "100ms")  # fmt: skip


@contextmanager
def spark(folder: Path) -> Iterator[None]:
    """A standalone master and a worker of one core on each host."""
    import pyspark

    home = Path(pyspark.__file__).parent
    spark_class = str(home / "bin" / "spark-class")
    processes = []
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "spark.txt").open("w"))

        def start(host: str, *words: str) -> None:
            environment = {
                **os.environ,
                "SPARK_HOME": str(home),
                "SPARK_LOCAL_IP": HOSTS[host],
                "SPARK_DAEMON_MEMORY": "256m",
                "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
                "SPARK_WORKER_DIR": str(folder / host),
                "PYSPARK_PYTHON": sys.executable,
            }
            processes.append(
                subprocess.Popen(
                    inside(host, spark_class, *words),
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

        try:
            deploy = "org.apache.spark.deploy"
            start(DRIVER, f"{deploy}.master.Master", "--host", HOSTS[DRIVER], "--port", "7077",
                  "--webui-port", "0")  # fmt: skip
            for host, address in HOSTS.items():
                start(host, f"{deploy}.worker.Worker", "--host", address, "--cores", "1",
                      "--memory", "2g", "--webui-port", "0", MASTER)  # fmt: skip
            yield
        finally:
            for process in reversed(processes):
                process.kill()  # of unshare, which takes along what it has started
            for process in processes:
                process.wait()


def drive(rates: list[str], batch: int, out: Path) -> None:
    """On the first host: plan and train at every rate."""
    from sixfold.distributed.engines import open_engine

    _wait_for(HOSTS[DRIVER], 7077)
    time.sleep(3)  # for the workers to register
    conf = [f"spark.driver.host={HOSTS[DRIVER]}", "spark.executor.memory=1g"]
    engine = open_engine("spark", master=MASTER, spark_conf=conf)
    found = []
    with contextlib.closing(engine):
        for rate in rates:
            limit(rate)
            found.append(_at(rate, batch, engine))
            out.write_text(json.dumps(found, indent=1))


def _wait_for(host: str, port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.2)
    raise RuntimeError(f"no Spark master at {host}:{port} after {START_S:.0f} s")


def _at(rate: str, batch: int, engine: Any) -> dict[str, Any]:
    """Predictions and measurements at one rate."""
    from sixfold.data.config import DataConfig
    from sixfold.distributed.config import EngineConfig
    from sixfold.models.config import ModelConfig
    from sixfold.perf.plan.config import PlanConfig, PlanningConfig
    from sixfold.perf.plan.run import plan
    from sixfold.training.config import LocalSgdConfig, TrainingConfig

    with tempfile.TemporaryDirectory() as folder:
        made = plan(
            PlanConfig(
                planning=PlanningConfig(out=f"{folder}/plan"),
                data=DataConfig(data="synthetic:4000x3x32x32"),
                model=ModelConfig(model="slide"),
                training=TrainingConfig(batch_size=batch, epochs=10),
                local_sgd=LocalSgdConfig(local_steps=LOCAL_STEPS),
                engine=EngineConfig(engine="spark", master=MASTER, workers=2),
            ),
            engine=engine,
        )
    links = made.calibration.machine.links
    print(f"{rate}: links {json.dumps(links.get('remote', {}).get('1', links))}", flush=True)
    rows: list[dict[str, Any]] = []
    for prediction in made.predictions:
        way = prediction.candidate
        if way.strategy in ("hogwild", "param_server"):
            continue  # they share a host's memory, or have their servers on the driver's host
        took = _train(way, batch, prediction.batch_s, engine)
        rows.append(
            {
                "way": way.name,
                "strategy": way.strategy,
                "workers": way.workers,
                "predicted_s": prediction.batch_s,
                "measured_s": took,
            }
        )
        print(
            f"  {way.name:<24} {way.workers}  predicted {1e3 * prediction.batch_s:8.2f} ms  "
            f"measured {1e3 * took:8.2f} ms",
            flush=True,
        )
    for title, chosen in (
        ("bit for bit", [row for row in rows if row["strategy"] == "sync"]),
        ("all", rows),
    ):
        first = min(chosen, key=lambda row: row["predicted_s"])
        best = min(chosen, key=lambda row: row["measured_s"])
        regret = first["measured_s"] / best["measured_s"] - 1
        print(
            f"  {title}: the plan takes {first['way']} on {first['workers']}, best is "
            f"{best['way']} on {best['workers']}, regret {regret:.1%}",
            flush=True,
        )
    return {"rate": rate, "rows": rows}


def _train(way: Any, batch: int, expected_s: float, engine: Any) -> float:
    """Seconds of a batch in a training."""
    import sixfold
    from sixfold.training.run import train

    more: dict[str, Any] = {"strategy": way.strategy, "workers": way.workers}
    if way.strategy == "model_parallel":
        more["grid"] = str(way.grid)
    if way.strategy == "local_sgd":
        more["local_steps"] = LOCAL_STEPS
    steps = int(np.clip(RUN_S / expected_s, 16, 160)) // LOCAL_STEPS * LOCAL_STEPS
    with tempfile.TemporaryDirectory() as folder:
        config = sixfold.configure(
            data="synthetic:4000x3x32x32",
            model="slide",
            batch_size=batch,
            lr=1e-4,
            evaluate_every=0.0,
            steps=steps,
            engine="spark",
            master=MASTER,
            out=f"{folder}/run",
            **more,
        )
        train(config, engine=engine)
        lines = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    times = [line["time"] for line in map(json.loads, lines) if "loss" in line]
    window = LOCAL_STEPS if way.strategy == "local_sgd" else 1
    return float(np.median(np.diff(np.asarray(times)[3 if window == 1 else 7 :: window]))) / window


def main() -> None:
    """Set up two hosts, and plan and train on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="10gbit,1gbit,100mbit")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("two_hosts.json"))
    parser.add_argument("--driver", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.driver:
        drive(options.rates.split(","), options.batch_size, options.out)
        return
    lacking = missing()
    if lacking:
        raise SystemExit(f"skipped: {'; '.join(lacking)}")
    with tempfile.TemporaryDirectory() as name, two_hosts(Path(name)), spark(Path(name)):
        words = [
            sys.executable, __file__, "--driver", "--rates", options.rates,
            "--batch-size", str(options.batch_size), "--out", str(options.out.absolute()),
        ]  # fmt: skip
        run(*inside(DRIVER, *words))


if __name__ == "__main__":
    main()
