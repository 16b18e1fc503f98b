"""Broken places, each really broken, and the verdict on each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from sixfold.core.object_store import ObjectStore
from sixfold.core.version import versions
from sixfold.spark.doctor.cluster import look_at_executors, look_at_memory_limit
from sixfold.spark.doctor.config import DoctorConfig, DoctorOptions
from sixfold.spark.doctor.findings import lines
from sixfold.spark.doctor.run import doctor


def examine(*words: str, **environment: str) -> tuple[int, list[str]]:
    """Exit status, and the lines that tell of something wrong or to be noted."""
    done = subprocess.run(
        [sys.executable, "-m", "sixfold", "doctor", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    return done.returncode, [line for line in lines if not line.startswith("ok ")]


def states(**options: object) -> Mapping[str, str]:
    """State of each thing that was looked at."""
    found = doctor(DoctorConfig(doctor=DoctorOptions(**options)))  # type: ignore[arg-type]
    return {finding["what"]: finding["state"] for finding in found["findings"]}


def test_a_sound_host_has_nothing_wrong(tmp_path: Path) -> None:
    found = states(out=str(tmp_path / "run"), data="digits")
    assert "wrong" not in found.values()
    assert {"this host", "--out", "--data", "cache"} <= found.keys()
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_written_and_read() -> None:
    assert states(out="memory://doctor/run")["--out"] == "ok"
    assert ObjectStore("memory://doctor/run").list() == {}


def test_places_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert states(out=str(file / "run"))["--out"] == "wrong"
    assert states(out="/proc/sixfold")["--out"] == "wrong"
    assert states(out="nosuch://bucket/run")["--out"] == "wrong"
    assert states(data=f"folder:{tmp_path}/nowhere")["--data"] == "wrong"


def test_settings_are_refused_together() -> None:
    status, lines = examine("--spark-conf", "nonsense", "--workers", "0")
    assert status == 2
    assert len(lines) == 3


CONF = "--spark-conf"
EARLY: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "no Java": (("--master", "local[2]"), {"JAVA_HOME": "/nowhere", "PATH": "/nowhere"}, "Java"),
    "no master there": (("--master", "spark://127.0.0.1:1"), {}, "127.0.0.1:1"),
    "no such master": (("--master", "sparc://host:1"), {}, "sparc://host:1"),
    "a setting misspelt": (
        ("--master", "local[2]", CONF, "spark.executor.core=2"),
        {},
        "did you mean spark.executor.cores",
    ),
    "a task that no executor can hold": (
        ("--master", "local[2]", CONF, "spark.task.cpus=4"),
        {},
        "spark.task.cpus",
    ),
    "fewer slots than workers": (("--master", "local[2]", "--workers", "5"), {}, "5 ranks need 5"),
    "YARN nobody knows": (("--master", "yarn"), {"HADOOP_CONF_DIR": "/nowhere"}, "HADOOP_CONF_DIR"),
    "a Connect session in the environment": (
        ("--master", "local[2]"),
        {"SPARK_REMOTE": "sc://host:15002"},
        "SPARK_REMOTE",
    ),
    "an address that is not here": (
        ("--master", "spark://127.0.0.1:1", CONF, "spark.driver.bindAddress=192.0.2.77"),
        {},
        "192.0.2.77",
    ),
}
"""What is seen before a JVM is started."""


@pytest.mark.full
@pytest.mark.parametrize("name", EARLY)
def test_what_no_session_can_start_with_is_wrong(name: str) -> None:
    pytest.importorskip("pyspark")
    words, environment, told = EARLY[name]
    status, lines = examine(*words, **environment)
    assert status == 1
    assert any(line.startswith("wrong") and told in line for line in lines), lines


def python_of_executors(folder: Path, *commands: str, flags: str = "") -> str:
    """A Python for executors that does something before it is Python."""
    file = folder / "python"
    site = sysconfig.get_path("purelib")
    path = "" if flags else f"export PYTHONPATH={site}:$PYTHONPATH\n"
    lines = "\n".join(commands)
    file.write_text(f'#!/bin/sh\n{path}{lines}\nexec {sys.executable} {flags} "$@"\n')
    file.chmod(0o755)
    return f"spark.pyspark.python={file}"


@pytest.mark.full
@pytest.mark.spark
def test_executors_without_libraries_are_named(tmp_path: Path) -> None:
    conf = python_of_executors(tmp_path, flags="-S")
    status, lines = examine("--master", "local[2]", CONF, conf)
    assert status == 1
    assert any("lacks torch, numpy, pyarrow" in line for line in lines), lines


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_executors_without_a_python_are_told(python: str) -> None:
    status, lines = examine("--master", "local[2]", CONF, f"spark.pyspark.python={python}")
    assert status == 1
    assert any("cannot run Python" in line for line in lines), lines


@pytest.mark.full
@pytest.mark.spark
def test_another_torch_is_told(tmp_path: Path) -> None:
    other = tmp_path / "site" / "torch-1.0.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0.0\n")
    conf = python_of_executors(tmp_path, f"export PYTHONPATH={other.parent}:$PYTHONPATH")
    status, lines = examine("--master", "local[2]", CONF, conf)
    assert status == 1
    assert any("has 1.0.0, this host" in line for line in lines), lines


@pytest.mark.full
@pytest.mark.spark
def test_a_path_that_is_not_shared_is_told(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")
    shared = tmp_path / "shared"
    shared.mkdir()
    inner = f'mount -t tmpfs none {shared} && exec {sys.executable} "$@"'
    conf = python_of_executors(tmp_path, f"exec unshare -m sh -c '{inner}' python \"$@\"")
    status, lines = examine("--master", "local[2]", CONF, conf, "--out", str(shared / "runs"))
    assert status == 1
    assert any("do not share" in line for line in lines), lines


@pytest.mark.full
@pytest.mark.spark
def test_ranks_that_compute_otherwise_are_told(tmp_path: Path) -> None:
    # Two executors have two Python daemons; the first to come has another instruction set.
    first = f"mkdir {tmp_path}/first 2>/dev/null && export ATEN_CPU_CAPABILITY=default"
    conf = python_of_executors(tmp_path, first)
    status, lines = examine("--master", "local-cluster[2,1,1024]", CONF, conf)
    assert status == 1
    assert any("other instruction sets" in line for line in lines), lines


@pytest.mark.full
@pytest.mark.spark
def test_a_driver_that_executors_cannot_call_is_told(standalone_master: str) -> None:
    status, lines = examine(
        *("--master", standalone_master, CONF, "spark.driver.host=192.0.2.77"),
        *(CONF, "spark.driver.bindAddress=127.0.0.1"),
    )
    assert status == 1
    assert any("192.0.2.77" in line for line in lines), lines


@pytest.mark.full
@pytest.mark.spark
def test_a_sound_session_has_nothing_wrong(tmp_path: Path) -> None:
    status, lines = examine("--master", "local[2]", "--out", str(tmp_path / "runs"))
    assert (status, lines) == (0, ["nothing is wrong"])
    assert list(tmp_path.iterdir()) == []


SOUND = {
    "host": "host-b",
    "python": versions()["python"],
    "executable": sys.executable,
    "time": 1000.0,
    "lacking": [],
    "torch": versions()["torch"],
    "memory_bytes": 2**33,
    "free_bytes": 2**33,
}


@pytest.mark.parametrize(
    ("change", "state", "said"),
    [
        ({}, "ok", "executors"),
        ({"time": 900.0}, "note", "clocks .*host-b differs by 100 s.*time server"),
        ({"memory_bytes": 2**27}, "note", "memory .*host-b has 128 MiB free.*fewer --workers"),
        ({"free_bytes": 2**22}, "wrong", "disk .*host-b has 4 MiB of scratch left.*make room"),
    ],
)
def test_what_an_executor_tells_gets_a_verdict(
    change: dict[str, object], state: str, said: str
) -> None:
    found = list(look_at_executors([SOUND | change], 1000.0, 1001.0))
    assert found[0].state == state
    assert re.search(said, lines(found[:1])[0])


@pytest.mark.parametrize(
    ("url", "settings", "state"),
    [
        ("spark://host:7077", {}, None),  # sets no limit
        ("local[4]", {}, None),
        ("yarn", {}, "note"),  # 384 MiB
        ("yarn", {"memory": "8g"}, "ok"),
        ("yarn", {"memory": "8g", "cores": "4"}, "note"),
        ("yarn", {"memoryOverhead": "2400", "cores": "4"}, "ok"),
        ("yarn", {"pyspark.memory": "1gb"}, "ok"),
        ("k8s://https://host:6443", {"memory": "2g"}, "ok"),
        ("k8s://https://host:6443", {"memory": "2g", "memoryOverheadFactor": "0.1"}, "note"),
    ],
)
def test_memory_that_a_cluster_leaves_to_ranks_is_compared_with_what_they_take(
    url: str, settings: dict[str, str], state: str | None
) -> None:
    given = {f"spark.executor.{key}": value for key, value in settings.items()}
    found = list(look_at_memory_limit(url, lambda key, default: given.get(key, default)))
    assert [finding.state for finding in found] == [state] * (state is not None)
    assert all("memoryOverhead=" in finding.remedy for finding in found if state == "note")
