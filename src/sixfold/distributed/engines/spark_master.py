"""What can be known of a Spark cluster, without pyspark: its URL, settings, Java."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sixfold.core.errors import UserError, raise_problems
from sixfold.distributed.process_group.ambient import cores

OLDEST_JAVA = 17  # Spark 4 runs on Java 17 and newer (https://spark.apache.org/docs/4.0.0/)

Kind = Literal["local", "local-cluster", "standalone", "connect", "other"]

_LOCAL = re.compile(r"local(?:\[(\d+|\*)(?:,(\d+))?\])?")
_LOCAL_CLUSTER = re.compile(r"local-cluster\[(\d+),(\d+),(\d+)\]")
_STANDALONE = re.compile(r"spark://([^/]+)")
_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})")
_FORMS = (
    "local[N], local[*], local-cluster[N,CORES,MB], spark://HOST:PORT, yarn, k8s://URL or "
    "sc://HOST:PORT"
)


@dataclass(frozen=True, kw_only=True)
class Master:
    """Where a Spark application is to run."""

    url: str  # as Spark wants it
    kind: Kind  # what it is
    slots: int | None = None  # how many cores it has for tasks, where the URL says so
    workers: int = 1  # of a local-cluster
    # host and port of each of a standalone cluster's masters, or of Kubernetes
    addresses: tuple[tuple[str, int], ...] = ()

    @property
    def on_this_host(self) -> bool:
        """Whether everything runs on this host by definition."""
        return self.kind in ("local", "local-cluster")


def parse_master(url: str) -> Master:
    """A master from its URL; a `UserError` if Spark would not understand it, or it has no slots."""
    squeezed = re.sub(r"\s+", "", url)
    workers = 1
    if found := _LOCAL.fullmatch(squeezed):
        count = found[1] or "1"
        slots = cores() if count == "*" else int(count)
        kind: Kind = "local"
    elif found := _LOCAL_CLUSTER.fullmatch(squeezed):
        workers = int(found[1])
        slots = workers * int(found[2])
        kind = "local-cluster"
        if slots and not int(found[3]):
            raise UserError(f"Spark master {url!r} gives its workers no memory (third number, MB)")
    elif squeezed.startswith("spark://"):
        return Master(url=squeezed, kind="standalone", addresses=_addresses(squeezed))
    elif squeezed == "yarn":
        return Master(url=squeezed, kind="other")
    elif squeezed.startswith("k8s://"):
        return Master(url=squeezed, kind="other", addresses=(_kubernetes(squeezed),))
    elif squeezed.startswith("sc://"):
        raise UserError(
            f"Spark master {url!r} is Spark Connect, which has no SparkContext, and this command "
            "needs one: give the cluster's own master, such as --master spark://HOST:7077, yarn or "
            "local[2]"
        )
    else:
        raise UserError(f"unknown Spark master {url!r}: expected {_FORMS}")
    if slots == 0:
        raise UserError(f"Spark master {url!r} can run no task at all: every number must be > 0")
    return Master(url=squeezed, kind=kind, slots=slots, workers=workers)


def _addresses(url: str) -> tuple[tuple[str, int], ...]:
    found = _STANDALONE.fullmatch(url)
    parts = [_HOST_PORT.fullmatch(part) for part in found[1].split(",")] if found else [None]
    addresses = tuple((part[1].strip("[]"), int(part[2])) for part in parts if part)
    if len(addresses) != len(parts) or not all(0 < port < 65536 for _, port in addresses):
        raise UserError(
            f"malformed Spark master {url!r}: expected spark://HOST:PORT or "
            "spark://HOST1:PORT1,HOST2:PORT2 (a standalone master's port is usually 7077)"
        )
    return addresses


def _kubernetes(url: str) -> tuple[str, int]:
    """Host and port of a Kubernetes API server: https, unless the URL says otherwise."""
    rest = url.removeprefix("k8s://")
    try:
        parts = urlsplit(rest if "://" in rest else f"https://{rest}")
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        parts, port = urlsplit(""), 0
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise UserError(f"malformed Spark master {url!r}: expected k8s://https://HOST:PORT")
    return parts.hostname, port


def parse_settings(pairs: Iterable[str]) -> dict[str, str]:
    """Spark settings from key=value, a later one wins; a `UserError` names each of another form.

    >>> parse_settings(["spark.executor.memory=2g", "spark.x=a=b"])
    {'spark.executor.memory': '2g', 'spark.x': 'a=b'}
    """
    settings, problems = {}, []
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key.startswith("spark.") or len(key) == len("spark."):
            problems.append(
                f"malformed Spark setting {pair!r}: expected spark.KEY=VALUE, such as "
                "spark.executor.memory=2g"
            )
        settings[key] = value
    raise_problems(problems)
    return settings


def submitted_master(environ: Mapping[str, str], spark_home: Path) -> str | None:
    """The master that spark-submit, the environment or Spark's defaults file names, if any.

    >>> submitted_master({"PYSPARK_SUBMIT_ARGS": "--master local[2] pyspark-shell"}, Path())
    'local[2]'
    """
    for master in filter(None, _submitted("--master", environ)):
        return master
    return default_settings(environ, spark_home).get("spark.master") or environ.get("MASTER")


def submitted_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that were given to spark-submit or pyspark by --conf.

    >>> submitted_settings({"PYSPARK_SUBMIT_ARGS": "--conf spark.task.cpus=2 pyspark-shell"})
    {'spark.task.cpus': '2'}
    """
    pairs = (pair.partition("=") for pair in _submitted("--conf", environ))
    return {key: value for key, _, value in pairs}


def _submitted(option: str, environ: Mapping[str, str]) -> list[str]:
    """The values of an option of spark-submit."""
    words = shlex.split(environ.get("PYSPARK_SUBMIT_ARGS", ""))
    return [
        following if word == option else word.removeprefix(f"{option}=")
        for word, following in itertools.pairwise([*words, ""])
        if word == option or word.startswith(f"{option}=")
    ]


def default_settings(environ: Mapping[str, str], spark_home: Path) -> dict[str, str]:
    """The settings in Spark's own defaults file, if it has one."""
    file = Path(environ.get("SPARK_CONF_DIR") or spark_home / "conf") / "spark-defaults.conf"
    if not file.is_file():
        return {}
    lines = (line.strip() for line in file.read_text(errors="replace").splitlines())
    found = (re.match(r"(spark\.[^\s=:]+)[\s=:]+(\S.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def check_java(environ: Mapping[str, str]) -> list[str]:
    """What is wrong with the Java that Spark's scripts would start: nothing, or one line."""
    remedy = (
        f"install a Java runtime, version {OLDEST_JAVA} or newer (such as the package "
        "openjdk-17-jre-headless), or point JAVA_HOME at one; --engine local needs none"
    )
    home = environ.get("JAVA_HOME")
    java = shutil.which("java", path=environ.get("PATH", os.defpath))
    if home:
        java = str(Path(home, "bin", "java"))
    if java is None:
        return [f"Spark needs Java, and there is none on PATH: {remedy}"]
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"JAVA_HOME is {home}, but " if home else ""
        return [f"Spark needs Java: {why}{java} cannot be run ({brief(error)}): {remedy}"]
    version = java_version(answer.stderr + answer.stdout)
    if version is None:
        return [f"Spark needs Java: {java} -version does not tell a version: {remedy}"]
    if version < OLDEST_JAVA:
        return [f"Spark needs Java {OLDEST_JAVA} or newer, and {java} is {version}: {remedy}"]
    return []


def java_version(output: str) -> int | None:
    """The feature release in what `java -version` prints.

    >>> java_version('openjdk version "17.0.15" 2025-04-15'), java_version('version "1.8.0_392"')
    (17, 8)
    """
    found = re.search(r'version "(\d+)(?:\.(\d+))?', output)
    if found is None:
        return None
    return int(found[2]) if found[1] == "1" and found[2] else int(found[1])


def brief(error: BaseException) -> str:
    """An error of the system in a few words."""
    if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
        return "no answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
