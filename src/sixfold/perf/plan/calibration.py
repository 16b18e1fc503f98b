"""What is measured before anything is predicted: the machine, and the network on it.

A calibration is a file of plain figures. It can be made on one machine and used on another, and
what is predicted from it can be computed again by hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_json
from sixfold.models.project import project_hashes
from sixfold.perf.plan.samples import EVEN, Spread
from sixfold.training.config import OptimizerConfig, TrainConfig

if TYPE_CHECKING:
    from sixfold.perf.plan.profiling_run import ProfilingCase

FORMAT = 1
BUSY = 1.25
"""From here on a machine counts as busy with other things."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A rehearsal's outcome: the median over steps of the slowest part."""

    mesh: str  # the group's axes, as `--grid` takes them; empty for the whole network
    merge: bool = False  # whether `step_s` is what a merge of local SGD adds to a step
    samples: int  # images of the step, in the group
    shards: int  # logical shards of them
    concurrency: int  # ranks of a host that computed at the same time
    step_s: float  # processor seconds of the step's thread, exchanges left out
    behind_s: float  # processor seconds of its other threads, which make the next batches
    clock_s: float  # seconds by the clock
    real: float = 0.0  # how many times that among real ranks; 0 where it was not tried
    data_s: float  # of these, waiting for images
    update_s: float  # of these, the optimizer's update
    peak_bytes: int  # most memory that the process held
    payload_bytes: int  # size of what the rank's shards add up
    # of one rank in one step: bytes sent to each peer, bytes received from each
    exchanges: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is known of a network on a machine."""

    payload_bytes: int  # size of what shards add up: gradients, buffers, and a few counts
    parameter_bytes: int  # size of all weights and float buffers
    slots: int  # vectors of the optimizer's state
    points: tuple[Point, ...] = ()  # the rehearsals
    spread: Spread = EVEN  # how the times of single steps differ
    # a round trip to a parameter server: `round_s`, `served_s`, `moved_bytes`
    server: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shared_update_s: float = 0.0  # an update of weights in memory that all ranks of a host write to
    update_s: float = 0.0  # the same in the rank's own memory

    def busyness(self) -> float:
        """How many times its processor time a step took by the clock; 1 if nothing else ran."""
        ratios = sorted(
            point.clock_s / point.step_s
            for point in self.points
            if not point.merge and point.step_s > 0
        )
        return max(ratios[len(ratios) // 2], 1.0) if ratios else 1.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is known of a machine, or a cluster."""

    name: str  # processor and engine
    engine: str  # on which the ranks ran
    slots: int  # ranks that can compute at the same time, over all hosts
    ranks: int  # of the process group that measured
    hosts: int = 1  # how many hosts the process group ran on
    available_bytes: int  # memory that processes of a host may take
    base_bytes: int  # memory of a rank before it has a network
    adding_bytes_per_s: float  # at which vectors are added
    startup_s: float  # until all ranks have met
    opening_s: float = 0.0  # until a rank is ready for its first step: data, network
    job_s: float = 0.0  # of one empty job of the engine's pool with a task for every slot
    # kind -> peers at once -> [bytes, seconds of a first exchange, of a following one]
    links: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
    # the same links with twice as many ranks as slots
    crowded: Mapping[str, Mapping[str, Sequence[Sequence[float]]]] = dataclasses.field(
        default_factory=dict
    )
    # layers that were timed, as `sixfold.perf.plan.kernels` writes them; empty if not asked
    kernels: Sequence[Sequence[Any]] = ()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A machine and the networks that were measured on it, by `network_key`."""

    machine: Machine
    networks: Mapping[str, Network]

    def with_network(self, key: str, network: Network) -> Calibration:
        """The same with one network more, its points joined with those known already."""
        old = self.networks.get(key)
        if old is not None:
            fresh = {place_of(point) for point in network.points}
            kept = tuple(point for point in old.points if place_of(point) not in fresh)
            network = dataclasses.replace(
                network,
                points=kept + network.points,
                server=network.server or old.server,
                shared_update_s=network.shared_update_s or old.shared_update_s,
            )
        return dataclasses.replace(self, networks={**self.networks, key: network})


def place_of(point: Point | ProfilingCase) -> tuple[Any, ...]:
    """What was rehearsed."""
    return point.mesh, point.merge, point.samples, point.shards, point.concurrency


def network_key(config: TrainConfig) -> str:
    """What the times of a network's steps depend on, besides machine and batch.

    >>> network_key(TrainConfig()) == network_key(TrainConfig())
    True
    """
    training, optimizer = config.training, config.optimizer
    facts = [
        dataclasses.asdict(config.model),
        sorted(project_hashes(config.model.model, config.model.model_args).items()),
        dataclasses.asdict(config.data),
        training.precision,
        training.batch_norm,
        optimizer.optimizer,
        optimizer.momentum > 0,
        optimizer.weight_decay > 0,
        config.local_sgd.aggregation,
        *_special(optimizer),
    ]
    text = json.dumps(facts, sort_keys=True)
    return f"{config.model.model}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _special(optimizer: OptimizerConfig) -> list[Any]:
    """Settings of an update that most trainings leave alone; left out then."""
    texts: list[Any] = [optimizer.optimizer_args, optimizer.no_decay]
    texts += [optimizer.freeze] if optimizer.freeze else []
    clipped = [optimizer.clip_value is not None, optimizer.clip_norm is not None]
    groups = [optimizer.lr_group, optimizer.weight_decay_group]
    given = [*texts, *groups, *clipped, optimizer.ema is not None]
    return [given] if any(given) else []


def save(calibration: Calibration, path: Path) -> None:
    """Write a calibration, whole or not at all."""
    write_json(path, {"format": FORMAT, **dataclasses.asdict(calibration)})


def load(path: Path) -> Calibration:
    """Read a calibration."""
    from pydantic import TypeAdapter

    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if found.get("format") != FORMAT:
            raise ValueError(f"its format is {found.get('format')}, this version reads {FORMAT}")
        return TypeAdapter(Calibration).validate_python(found)
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"--machine {path}: no calibration of `sixfold plan` ({' '.join(str(error).split())}); "
            "leave it away and one is made"
        ) from None


def load_if_there(path: str | None) -> Calibration | None:
    """The calibration in a file, if there is such a file."""
    return load(Path(path)) if path is not None and Path(path).is_file() else None
