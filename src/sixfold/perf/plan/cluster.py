"""Clusters that are not here: what `--what-if` says of them, as a machine of the step model."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sixfold.core.errors import raise_problems
from sixfold.perf.plan.calibration import Machine
from sixfold.perf.plan.links import Curve, Links, affine, curve_of

MOST_WORKERS = 1 << 20

MTBF_HOURS = 1700.0
"""Of a host. Of 124 hosts, 100 were replaced, and 35 more restarts made, in two months: S. Zhang
et al., "OPT: Open pre-trained transformer language models", 2022, section 2.5."""

CHECKPOINT_MINUTES = 1.0
"""As training does (`sixfold.training.worker.CHECKPOINT_S`)."""

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_FORM = (
    "expected workers=N and, separated by commas, any of per_host=R, link=10Gbps/20us, "
    "oversubscription=K, mtbf=HOURS, checkpoint=MINUTES, machine=FILE"
)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that is asked about."""

    workers: int  # ranks at most
    # ranks of a host, each with a core like the calibrated ones; as many as the calibrated host has
    # cores if None
    per_host: int | None = None
    bytes_per_s: float = 1.25e9  # of a host's link, each way
    latency_s: float = 2e-5  # of a message between hosts
    oversubscription: float = 1.0  # by how much less the hosts can send all at once than one by one
    mtbf_hours: float = MTBF_HOURS  # mean time between failures of a host
    checkpoint_minutes: float = CHECKPOINT_MINUTES  # between two checkpoints
    machine: str | None = None  # file with the calibration of its hosts, or None


def parse_cluster(text: str) -> Cluster:
    """Read `--what-if`; everything that is wrong with it is told.

    >>> cluster = parse_cluster("workers=1024,link=10Gbps/20us")
    >>> cluster.workers, cluster.bytes_per_s, cluster.latency_s
    (1024, 1250000000.0, 2e-05)
    """
    values: dict[str, str] = {}
    wrong: list[str] = []
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or name not in _READERS or name in values:
            why = "is given twice" if equals and name in values else "is not known"
            wrong.append(f"--what-if: {pair.strip()!r} {why}; {_FORM}")
        else:
            values[name] = value
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        try:
            chosen |= _READERS[name](value)
        except ValueError as error:
            wrong.append(f"--what-if: {name}={value}: expected {error}")
    if "workers" not in values:
        wrong.append(f"--what-if {text!r}: workers is missing; {_FORM}")
    raise_problems(wrong)
    return Cluster(**chosen)


def _count(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MOST_WORKERS):
        raise ValueError(f"a whole number from 1 to {MOST_WORKERS}")
    return int(value)


def _positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise ValueError("a number above 0")
    return number


def _link(value: str) -> dict[str, float]:
    match = re.fullmatch(r"([0-9.]+)([kmgt]?)bps/([0-9.]+)(s|ms|us|ns)", value.lower())
    if match is None:
        raise ValueError("bandwidth and latency such as 10Gbps/20us or 100Mbps/0.2ms")
    rate, unit, latency, time_unit = match.groups()
    bits = _positive(rate) * UNITS[unit]
    return {"bytes_per_s": bits / 8, "latency_s": _positive(latency) * TIMES[time_unit]}


_READERS: dict[str, Callable[[str], Mapping[str, Any]]] = {
    "workers": lambda value: {"workers": _count(value)},
    "per_host": lambda value: {"per_host": _count(value)},
    "link": _link,
    "oversubscription": lambda value: {"oversubscription": max(_positive(value), 1.0)},
    "mtbf": lambda value: {"mtbf_hours": _positive(value)},
    "checkpoint": lambda value: {"checkpoint_minutes": _positive(value)},
    "machine": lambda value: {"machine": value},
}


def machine_with(machine: Machine, cluster: Cluster, workers: int) -> Machine:
    """The calibrated machine, so many times that the cluster's ranks have room."""
    per_host = ranks_per_host(machine, cluster)
    hosts = -(-workers // per_host)
    return dataclasses.replace(machine, hosts=hosts, slots=hosts * per_host)


def ranks_per_host(machine: Machine, cluster: Cluster) -> int:
    """Of the cluster."""
    return cluster.per_host or max(machine.slots // machine.hosts, 1)


def links_with(machine: Machine, cluster: Cluster, workers: int) -> Links:
    """The links of the cluster: within a host as calibrated, between hosts as asked."""
    rows = machine.links.get("local", {}).get("1")
    local: Curve | None = curve_of(rows) if rows else None
    rate = cluster.bytes_per_s / cluster.oversubscription
    per_host = min(ranks_per_host(machine, cluster), workers)
    remote = affine(cluster.latency_s, rate) if workers > per_host else None
    return Links(local=local, remote=remote, per_host=per_host)


def with_failures(
    work_s: float, *, hosts: int, mtbf_hours: float, checkpoint_s: float, restart_s: float
) -> float:
    """Expected time of work that starts again from its last checkpoint after a failure.

    With failures at rate r (of any host) and a checkpoint every c seconds of work, each of the w /
    c stretches takes (1/r + R) (exp(r c) - 1) on average, R for the restart: J. T. Daly, "A higher
    order estimate of the optimum checkpoint interval for restart dumps", 2006. Writing is not
    counted.

    >>> round(with_failures(3600, hosts=1, mtbf_hours=1e9, checkpoint_s=60, restart_s=10), 3)
    3600.0
    """
    rate = hosts / (mtbf_hours * 3600)
    stretch = min(checkpoint_s, work_s)
    if stretch <= 0:
        return work_s
    return work_s / stretch * (1 / rate + restart_s) * math.expm1(min(rate * stretch, 700.0))
