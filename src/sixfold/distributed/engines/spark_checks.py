"""What is wrong with settings and surroundings, found out before a JVM is started.

Spark tells of most of these late, with a traceback, or not at all.
"""

import difflib
import os
import queue
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from pyspark import SparkContext
from pyspark.find_spark_home import _find_spark_home

from sixfold.core.errors import UserError, raise_problems
from sixfold.distributed.engines.spark_master import (
    Master,
    brief,
    check_java,
    default_settings,
    parse_master,
    parse_settings,
    submitted_master,
    submitted_settings,
)

RESOLVE_S = 3.0  # for a name server to answer

_WHOLE = ("spark.task.cpus", "spark.executor.cores", "spark.cores.max", "spark.driver.cores")

_KNOWN = (
    *_WHOLE,
    *("spark.app.name", "spark.master", "spark.submit.deployMode", "spark.ui.enabled"),
    *("spark.executor.memory", "spark.executor.memoryOverhead", "spark.executor.instances"),
    *("spark.driver.memory", "spark.driver.memoryOverhead", "spark.driver.host"),
    *("spark.driver.port", "spark.driver.bindAddress", "spark.blockManager.port"),
    *("spark.pyspark.python", "spark.pyspark.driver.python", "spark.local.dir"),
    *("spark.dynamicAllocation.enabled", "spark.task.maxFailures", "spark.network.timeout"),
    *("spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions", "spark.jars"),
    "spark.scheduler.maxRegisteredResourcesWaitingTime",
)
"""Settings that matter to us: one that differs from them by a slip is refused. Spark takes any
name without a word."""


def check(
    master: str | None, spark_conf: Iterable[str], ranks: int
) -> tuple[Master | None, dict[str, str]]:
    """The master and the settings to start with; a `UserError` with everything that is wrong.

    The master is None if only the JVM that spark-submit has started knows it.
    """
    settings: dict[str, str] = {}
    parsed: Master | None = None
    problems = connect_problems(os.environ)
    try:
        settings = parse_settings(spark_conf)
    except UserError as error:
        problems += error.problems
    home = Path(_find_spark_home())
    in_force = default_settings(os.environ, home) | submitted_settings(os.environ) | settings
    problems += setting_problems(settings, in_force)
    try:
        parsed = _choose_master(master, settings, home)
    except UserError as error:
        problems += error.problems
    if parsed is not None:
        problems += slot_problems(parsed, in_force, ranks)
        problems += host_problems(parsed, in_force, os.environ)
        problems += yarn_problems(parsed, os.environ)
    if not has_gateway():
        problems += check_java(os.environ)
    raise_problems(problems)
    return parsed, settings


def has_gateway() -> bool:
    """Whether a JVM runs already: that of spark-submit, or of a session that was stopped."""
    return SparkContext._gateway is not None or "PYSPARK_GATEWAY_PORT" in os.environ


def connect_problems(environ: Mapping[str, str]) -> list[str]:
    """What Spark Connect, where this process uses it, keeps us from."""
    remedy = "the cluster's own master, such as --master spark://HOST:7077, yarn or local[2]"
    if "SPARK_CONNECT_MODE_ENABLED" in environ:
        return [
            "this process has a Spark Connect session, through which Sixfold cannot start ranks "
            f"(they need a SparkContext): train in another Python process, with {remedy}"
        ]
    if "SPARK_REMOTE" in environ:
        return [
            f"SPARK_REMOTE is {environ['SPARK_REMOTE']}: Sixfold cannot start ranks through Spark "
            f"Connect (they need a SparkContext): unset SPARK_REMOTE and give {remedy}"
        ]
    return []


def setting_problems(given: Mapping[str, str], in_force: Mapping[str, str]) -> list[str]:
    """What is wrong with settings by themselves.

    >>> setting_problems({"spark.executor.core": "2"}, {})
    ['unknown Spark setting spark.executor.core: did you mean spark.executor.cores?']
    >>> setting_problems({}, {"spark.task.cpus": "two"})
    ["spark.task.cpus is 'two': expected a whole number from 1"]
    """
    problems = []
    for key in given:
        close = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.93)
        if close and key not in _KNOWN:
            problems.append(f"unknown Spark setting {key}: did you mean {close[0]}?")
    problems += [
        f"{key} is {in_force[key]!r}: expected a whole number from 1"
        for key in _WHOLE
        if key in in_force and not re.fullmatch("0*[1-9][0-9]*", in_force[key])
    ]
    return problems


def task_slots(master: Master, settings: Mapping[str, str]) -> int | None:
    """How many tasks a master can run at a time; None if that is known only to the cluster.

    >>> task_slots(parse_master("local[5]"), {"spark.task.cpus": "2"})
    2
    >>> task_slots(parse_master("local-cluster[2,3,1024]"), {"spark.task.cpus": "2"})
    2
    """
    cpus, cores = (_whole(settings, key) for key in ("spark.task.cpus", "spark.executor.cores"))
    if master.slots is None:
        return 0 if cores and cores < (cpus or 1) else None
    if master.kind == "local":
        return master.slots // (cpus or 1)
    # A standalone master gives cores out in turns, to executors of a fixed size or one a worker.
    each, free = cores or 1, [master.slots // master.workers] * master.workers
    left = min(_whole(settings, "spark.cores.max") or master.slots, master.slots)
    while left >= each and max(free) >= each:
        for worker in range(master.workers):
            if left >= each and free[worker] >= each:
                free[worker] -= each
                left -= each
    given = [master.slots // master.workers - rest for rest in free]
    if cores:
        return sum(share // cores for share in given) * (cores // (cpus or 1))
    return sum(share // (cpus or 1) for share in given)


def slot_problems(master: Master, settings: Mapping[str, str], ranks: int) -> list[str]:
    """Whether ranks find slots, as far as the master's URL and the settings say."""
    slots = task_slots(master, settings)
    if slots is None or slots >= ranks:
        return []
    return [too_few_slots(master, settings, ranks, slots)]


def too_few_slots(master: Master, settings: Mapping[str, str], ranks: int, slots: int) -> str:
    """What is wrong, and what to do, where `ranks` tasks need slots and there are `slots`."""
    cpus = settings.get("spark.task.cpus", "1")
    each = f" of {cpus} cores each (spark.task.cpus)" if cpus != "1" else ""
    if slots == 0:
        return (
            f"{master.url} can run no task: one takes {cpus} cores (spark.task.cpus), and no "
            "executor has that many: lower spark.task.cpus, or give executors more cores "
            "(spark.executor.cores, the master's cores)"
        )
    return (
        f"{ranks} ranks need {ranks} Spark task slots at the same time, and {master.url} has "
        f"{slots}{each}: use --workers {slots} or fewer, or a master with more cores"
    )


def host_problems(
    master: Master, settings: Mapping[str, str], environ: Mapping[str, str]
) -> list[str]:
    """Whether the driver can listen where it is told to."""
    host, bind = settings.get("spark.driver.host"), settings.get("spark.driver.bindAddress")
    local_ip = environ.get("SPARK_LOCAL_IP")
    named = {"spark.driver.bindAddress": bind, "SPARK_LOCAL_IP": local_ip}
    if bind is None or master.on_this_host:  # else only executors resolve it
        named["spark.driver.host"] = host
    problems = []
    for key, name in named.items():
        why = _unusable(name) if name else ""
        if why:
            problems.append(
                f"{key} is {name!r}, on which this host cannot listen ({why}): give a name or an "
                "address of this host that executors can reach"
            )
    return problems


def _unusable(host: str) -> str:
    """Why this host cannot listen there; empty if it can. Only a thread bounds the time."""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_event() -> None:
        try:
            family, *_, address = socket.getaddrinfo(host.strip("[]"), 0)[0]
            socket.create_server(address[:2], family=family).close()
            answers.put("")
        except (OSError, UnicodeError) as error:
            answers.put(brief(error))

    threading.Thread(target=on_event, daemon=True, name="sixfold-resolve").start()
    try:
        return answers.get(timeout=RESOLVE_S)
    except queue.Empty:
        return "its name is not resolved"


def yarn_problems(master: Master, environ: Mapping[str, str]) -> list[str]:
    """Whether Spark can find out where YARN is."""
    if master.url != "yarn":
        return []
    folders = {key: environ[key] for key in ("HADOOP_CONF_DIR", "YARN_CONF_DIR") if key in environ}
    if not folders:
        return [
            "--master yarn needs the cluster's configuration: set HADOOP_CONF_DIR (or "
            "YARN_CONF_DIR) to the folder that holds its yarn-site.xml"
        ]
    return [
        f"{key} is {folder!r}, which is no folder: expected the one that holds yarn-site.xml"
        for key, folder in folders.items()
        if not Path(folder).is_dir()
    ]


def _choose_master(
    master: str | None, settings: Mapping[str, str], spark_home: Path
) -> Master | None:
    """The master to use; None if it is known only to the JVM that spark-submit has started."""
    url = master or settings.get("spark.master")
    if url is None and "PYSPARK_GATEWAY_PORT" in os.environ:
        return None
    url = url or submitted_master(os.environ, spark_home)
    if url is None:
        raise UserError(
            "--engine spark needs to know where to run: give --master, such as local[2] or "
            "spark://HOST:7077 (there is no active Spark session, nor a master set by spark-submit)"
        )
    return parse_master(url)


def _whole(settings: Mapping[str, str], key: str) -> int | None:
    text = settings.get(key, "")
    return int(text) if text.isdigit() and int(text) else None
