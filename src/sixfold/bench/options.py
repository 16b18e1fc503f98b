"""Settings of the benchmarks, in the form from which the command line makes its options."""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.config import option

MAX_STEPS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TrainBenchConfig:
    """What is measured, and how long."""

    data: str = option("synthetic:4000x3x32x32", "data set, as for `sixfold train`")
    model: str = option("slide", "network, as for `sixfold train`")
    batches: str = option("10,100,1000,2000", "batch sizes, separated by commas")
    workers: int = option(2, "ranks of Sixfold, and processes of TorchDistributor")
    repeats: int = option(3, "measurements of each; the median is shown with least and most")
    seconds: float = option(5.0, "about how long a measurement lasts")
    steps: int | None = option(None, "steps of a measurement, instead of --seconds")
    out: str = option("runs/bench-train", "directory for train.json and train.html")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Everything that `sixfold bench` takes."""

    bench: TrainBenchConfig = TrainBenchConfig()


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
    if config.workers < 1:
        found.append(f"--workers {config.workers}: must be at least 1")
    if config.repeats < 1:
        found.append(f"--repeats {config.repeats}: must be at least 1")
    if not 0 < config.seconds <= 3600:
        found.append(f"--seconds {config.seconds:g}: must be more than 0 and at most 3600")
    if config.steps is not None and not first_timed_step < config.steps <= MAX_STEPS:
        found.append(
            f"--steps {config.steps}: must be at least {first_timed_step + 1}, because the clock "
            f"starts at the end of step {first_timed_step}"
        )
    return found
