"""The ways to divide a training that are compared, what must be measured, what is predicted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from sixfold.distributed.logical_shards import shard_count
from sixfold.perf.plan.profiling_run import ProfilingCase
from sixfold.training.config import TrainConfig
from sixfold.training.strategies.model_parallel.grid import Grid, Mesh

LARGEST_MESH = 8
"""Groups of more ranks are not tried: a layer's maps are too small to be worth it."""
MANY = 4
"""Shards of a step that is rehearsed: enough to tell what comes once a shard and once a step."""
WHOLE = Grid()
"""Of one rank."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way."""

    strategy: str  # as `--strategy` takes it
    workers: int  # ranks
    grid: Grid = WHOLE  # for `model_parallel`

    @property
    def name(self) -> str:
        """For tables."""
        if self.strategy == "model_parallel":
            return f"model_parallel {self.grid}"
        return self.strategy

    @property
    def title(self) -> str:
        """For sentences."""
        return f"{self.name} on {count_workers(self.workers)}"

    @property
    def mesh(self) -> str:
        """The group's axes, as a scene names them; empty for a whole network."""
        if self.strategy != "model_parallel" or self.grid.mesh.size == 1:
            return ""
        return str(Grid(mesh=self.grid.mesh))


def count_workers(count: int) -> str:
    """So many workers.

    >>> count_workers(1), count_workers(2048)
    ('1 worker', '2,048 workers')
    """
    return f"{count:,} worker{'' if count == 1 else 's'}"


def meshes(size: int) -> Iterator[Mesh]:
    """All groups of so many ranks.

    >>> [str(Grid(mesh=mesh)) for mesh in meshes(2)]
    ['cin=2', 'cout=2', 'cols=2', 'rows=2']
    """
    for rows in _divisors(size):
        for cols in _divisors(size // rows):
            for cout in _divisors(size // rows // cols):
                yield Mesh(rows=rows, cols=cols, cout=cout, cin=size // rows // cols // cout)


def _divisors(number: int) -> list[int]:
    return [value for value in range(1, number + 1) if number % value == 0]


def worker_counts(workers: int) -> list[int]:
    """Powers of two up to the number of workers, and that number.

    >>> worker_counts(6)
    [1, 2, 4, 6]
    """
    found = [1 << power for power in range(workers.bit_length()) if 1 << power < workers]
    return [*found, workers]


def candidates(config: TrainConfig, workers: int, fitting: Iterable[Mesh]) -> list[Candidate]:
    """Every strategy and grid for so many workers, and `sync` with fewer.

    Strategies that do not fit the settings are left out; `fitting` are the meshes by which the
    network can be divided.
    """
    found = [Candidate(strategy="sync", workers=n) for n in worker_counts(workers)]
    if workers == 1:
        return found
    for mesh in fitting:
        if workers % mesh.size == 0 and 1 < mesh.size <= workers:
            grid = Grid(batch=workers // mesh.size, mesh=mesh)
            found.append(Candidate(strategy="model_parallel", workers=workers, grid=grid))
    others = ["hogwild", "param_server"]
    if config.training.batch_size >= workers:
        others.insert(0, "local_sgd")
    return found + [Candidate(strategy=name, workers=workers) for name in others]


def cases(
    config: TrainConfig,
    workers: int,
    fitting: Iterable[Mesh],
    *,
    batch_norm: bool,
    concurrency: int,
    batches: Iterable[int] = (),
    inexact: bool = True,
) -> list[ProfilingCase]:
    """What must be rehearsed, the most needed first.

    Args:
        config: the settings.
        workers: how many.
        fitting: the meshes by which the network can be divided.
        batch_norm: whether shards must be larger.
        concurrency: ranks of a host that compute at the same time.
        batches: more batch sizes that are wanted.
        inexact: whether strategies are wanted that do not equal serial training.
    """
    sizes = [config.training.batch_size, *batches]
    found: dict[ProfilingCase, None] = {}

    def add(batch: int, most: int, levels: Iterable[int], mesh: str = "") -> int:
        """A step of a few shards of a batch and of one; how many shards the batch has."""
        count = shard_count(batch, batch_norm=batch_norm, wanted=config.training.shards)
        for shards in dict.fromkeys((min(most, count), 1)):
            samples = max(round(batch / count * shards), shards)
            for level in levels:
                case = ProfilingCase(mesh=mesh, samples=samples, shards=shards, concurrency=level)
                found[case] = None
        return count

    for batch in sizes:
        add(batch, MANY, sorted({1, concurrency}, reverse=True))
    if workers > 1:
        for batch, mesh in product(sizes, fitting):
            add(batch, 2, [concurrency], str(Grid(mesh=mesh)))
        if inexact and sizes[0] >= workers:
            own = -(-sizes[0] // workers)
            shards = min(add(own, MANY, [concurrency]), 4)
            case = ProfilingCase(samples=own, shards=shards, merge=True, concurrency=concurrency)
            found[case] = None
    return list(found)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Times are seconds; a batch is what `--batch-size` says, whoever computes it."""

    candidate: Candidate  # the way
    batch_s: float  # from one batch's end to the next one's, in the middle of all steps
    low_s: float  # below which one batch in twenty stays
    high_s: float  # above which one in twenty is
    mean_s: float  # on average, slow steps included; what long runs are made of
    compute_s: float  # of `batch_s`, a rank's own work
    exchange_s: float  # of it, moving bytes
    waiting_s: float  # of it, waiting for the slowest
    scheduler_s: float  # per batch, the engine's start-up, spread over the run
    total_s: float  # of the whole run, start-up included, evaluations not
    sent_bytes: float  # by the busiest rank, per batch
    memory_bytes: float  # of a rank
    host_bytes: float  # of all ranks of a host
    idle_ranks: int  # that have nothing to do
    fits: bool  # whether the hosts have that much memory
    limit: str  # what limits it, in words
    extrapolated: bool = False  # whether more ranks are predicted than were measured


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained."""

    batch_size: int  # images of a step
    steps: int  # of the run
    batch_norm: bool = False  # whether shards must be larger
    shards: int | None = None  # `--shards`
    local_steps: int = 16  # steps between two merges of local SGD
    merge_every: int = 100  # steps between two meetings of hogwild
    servers: int = 1  # parameter servers
    exact: bool = True  # whether gradients are added in the fixed tree
    mirrors: bool = False  # whether each rank of a single group keeps a copy of another's part
