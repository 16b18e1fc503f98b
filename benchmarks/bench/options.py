"""Settings of the benchmarks, in the form from which the command line makes its options."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from sixfold.core.settings import Settings, option
from sixfold.distributed.logical_shards import LARGEST_COUNT, is_power_of_two

MAX_STEPS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TrainBenchConfig(Settings):
    """What is measured, and how long."""

    data: str = option("synthetic:4000x3x32x32", "data set, as for `sixfold train`")
    model: str = option(
        "slide",
        "network, as for `sixfold train`; train takes several, separated by commas, each with a "
        "side of images and a batch of its own if need be: slide,resnet50@224:16",
    )
    batches: str = option("10,100,1000,2000", "batch sizes, separated by commas")
    workers: int = option(2, "ranks of Sixfold, and processes of TorchDistributor", ge=1)
    repeats: int = option(3, "measurements of each; the median is shown with least and most", ge=1)
    seconds: float = option(5.0, "about how long a measurement lasts", gt=0, le=3600)
    steps: int | None = option(None, "steps of a measurement, instead of --seconds")
    out: str | None = option(
        None, "directory for NAME.json and NAME.html (default: runs/bench-NAME)"
    )


@dataclass(frozen=True, kw_only=True)
class PartsBenchConfig(Settings):
    """What only some benchmarks take."""

    peers: str = option(
        "eager,channels-last,compile,torchrun,bf16,autocast",
        "train: who is measured beside Sixfold, of eager, channels-last, compile, autocast "
        "(bfloat16), torchrun, ddp (TorchDistributor), bf16 (Sixfold with --precision bf16)",
    )
    images: int = option(25, "kernels: images of a shard")
    augment: str = option("crop:4,flip", "input: augmentation, as for `sixfold train`")
    sizes: str = option("4KB,337KB,4MB", "allreduce: sizes of the vectors, separated by commas")
    model_args: str = option("", "tune: arguments of the network, as for `sixfold train`")
    precision: str = option(
        "float32",
        "tune: arithmetic, as for `sixfold train`",
        choices=("float32", "float64", "bf16"),
    )
    shards: int | None = option(
        None,
        "tune: logical shards a step, as for `sixfold train` (default: from the batch size)",
        ge=1,
        le=LARGEST_COUNT,
    )


@dataclass(frozen=True, kw_only=True)
class BenchConfig(Settings):
    """Everything that `sixfold bench` takes."""

    bench: TrainBenchConfig = TrainBenchConfig()
    parts: PartsBenchConfig = PartsBenchConfig()


TAKES = {
    "train": {
        "data",
        "model",
        "batches",
        "workers",
        "repeats",
        "seconds",
        "steps",
        "out",
        "peers",
    },
    "scaling": {"data", "model", "batches", "workers", "repeats", "seconds", "steps", "out"},
    "kernels": {"images", "repeats", "out"},
    "input": {
        "data",
        "model",
        "batches",
        "workers",
        "repeats",
        "seconds",
        "steps",
        "out",
        "augment",
    },
    "startup": {"data", "model", "batches", "workers", "repeats", "out"},
    "allreduce": {"workers", "repeats", "sizes", "out"},
    "tune": {"data", "model", "model_args", "batches", "precision", "shards", "repeats", "out"},
}
"""Benchmark -> the options that mean something to it."""


def misplaced(name: str, config: BenchConfig) -> list[str]:
    """Options that were given and mean nothing to a benchmark, one line each.

    >>> misplaced("allreduce", BenchConfig(bench=TrainBenchConfig(model="slide2")))
    ['--model: bench allreduce does not take it; it takes --out, --repeats, --sizes, --workers']
    """
    known = TAKES[name]
    takes = ", ".join(f"--{option.replace('_', '-')}" for option in sorted(known))
    return [
        f"--{field.name.replace('_', '-')}: bench {name} does not take it; it takes {takes}"
        for section in (config.bench, config.parts)
        for field in dataclasses.fields(section)
        if field.name not in known and getattr(section, field.name) != field.default
    ]


_UNITS = {"": 1, "B": 1, "KB": 1000, "KIB": 1 << 10, "MB": 1_000_000, "MIB": 1 << 20}
LARGEST_SIZE = 1 << 30


def parse_sizes(text: str) -> list[int]:
    """Sizes in bytes from their list, each a multiple of 4.

    Raises:
        ValueError: if one is no size from 4 bytes to 1 GiB.

    >>> parse_sizes("4KB, 337KB,4MiB")
    [4000, 337000, 4194304]
    """
    found = []
    for word in text.split(","):
        match = re.fullmatch(r"([0-9.]+) *([A-Za-z]*)", word.strip())
        if match is None or match[2].upper() not in _UNITS:
            raise ValueError(word)
        size = int(float(match[1]) * _UNITS[match[2].upper()]) // 4 * 4
        if not 4 <= size <= LARGEST_SIZE:
            raise ValueError(word)
        found.append(size)
    return list(dict.fromkeys(found))


def written_size(count_bytes: int) -> str:
    """A size as people write it.

    >>> written_size(4000), written_size(337_000), written_size(4_000_000)
    ('4 KB', '337 KB', '4 MB')
    """
    if count_bytes >= 1_000_000:
        return f"{count_bytes / 1e6:.4g} MB"
    return f"{count_bytes / 1e3:.4g} KB"


def parts_problems(name: str, config: BenchConfig, first_timed_step: int) -> list[str]:
    """What is wrong with the settings of a benchmark, one line each.

    Args:
        name: of the benchmark.
        config: its settings.
        first_timed_step: the clock of a training starts at the end of this step.
    """
    found = misplaced(name, config) + config.problems()
    bench = config.bench
    if name == "tune":
        alone = dataclasses.replace(bench, workers=1)  # one thread computes one shard
        return found + problems(alone, first_timed_step) + _tune_problems(config)
    if {"batches", "seconds", "steps"} & TAKES[name]:
        return found + problems(bench, first_timed_step)
    if name == "allreduce":
        if bench.workers == 1:
            found.append("--workers 1: an all-reduce needs at least 2")
        try:
            parse_sizes(config.parts.sizes)
        except ValueError as error:
            found.append(
                f"--sizes {config.parts.sizes}: {error} is no size; give such as 4KB,337KB,4MB "
                "(4 bytes to 1 GiB)"
            )
    return found


def _tune_problems(config: BenchConfig) -> list[str]:
    shards = config.parts.shards
    if shards is None or is_power_of_two(shards):
        return []
    return [f"--shards {shards}: must be a power of two"]


def parse_batches(text: str) -> list[int]:
    """Batch sizes from their list, each once, in the order given.

    Raises:
        ValueError: if there is none, or one is no positive number.

    >>> parse_batches("10, 100,10")
    [10, 100]
    """
    sizes = [int(word) for word in text.split(",")]
    if min(sizes) < 1:
        raise ValueError(text)
    return list(dict.fromkeys(sizes))


def problems(config: TrainBenchConfig, first_timed_step: int) -> list[str]:
    """What is wrong with the settings, one line each.

    Args:
        config: the settings.
        first_timed_step: the clock starts at the end of this step.

    >>> problems(TrainBenchConfig(batches="ten", steps=3), 3)
    ['--batches ten: expected batch sizes such as 10,100', '--steps 3: must be at least 4, \
because the clock starts at the end of step 3']
    """
    found = []
    try:
        sizes = parse_batches(config.batches)
    except ValueError:
        found.append(f"--batches {config.batches}: expected batch sizes such as 10,100")
    else:
        small = [size for size in sizes if 1 <= config.workers > size]
        if small:
            found.append(
                f"--batches {config.batches}: {small[0]} images cannot be divided among "
                f"{config.workers} processes"
            )
    if config.steps is not None and not first_timed_step < config.steps <= MAX_STEPS:
        found.append(
            f"--steps {config.steps}: must be at least {first_timed_step + 1}, because the clock "
            f"starts at the end of step {first_timed_step}"
        )
    return found
