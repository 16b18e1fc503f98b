"""Which micro-batch is fastest for a network on this machine.

A logical shard of the training is computed forward and backward by one thread, as a rank does,
once for each candidate in turns: whole, cut by the formula (`sixfold.training.step.micro_batches`),
and cut into pieces of powers of two. The fastest goes into a tuning file, which `sixfold train
--tuning FILE` takes. The formula is the same everywhere; a tuning file is of a machine, and has to
be given.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from typing import Any

import torch

from benchmarks.bench.comparison import Comparison, spread
from benchmarks.bench.contenders import cores
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig, parse_batches
from benchmarks.bench.publish import Show, begin, publish
from sixfold import data as datasets
from sixfold import models
from sixfold.core.errors import UserError
from sixfold.core.files import write_json
from sixfold.core.processor import processor_name
from sixfold.core.version import versions
from sixfold.data.config import DataConfig
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.models.config import ModelConfig
from sixfold.training.config import TrainConfig, TrainingConfig
from sixfold.training.step.batches import plan_batches
from sixfold.training.step.micro_batches import MicroBatch
from sixfold.training.step.norm_sync import has_batch_norm
from sixfold.training.step.precision import in_precision
from sixfold.training.step.step import Shard, Step, open_step
from sixfold.training.tuning import VERSION, Tuning

SAMPLE_S = 0.2
"""About how long a sample lasts at least."""

SMALLEST = 8
"""The smallest piece that is tried: below, calls cost more than any cache gives."""

WHOLE = "whole"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A batch size that is tuned."""

    settings: TrainConfig  # of the training
    step: Step  # the network and how its shards are computed
    shard: Shard  # the first of the first step
    formula: int  # images of a piece by the formula


def run_tune_bench(
    config: TrainBenchConfig, parts: PartsBenchConfig, *, show: Show
) -> list[Comparison]:
    """Measure, show the tables, and write `tuning.json`, `tune.json` and `tune.html`."""
    data = datasets.resolve(DataConfig(data=config.data))
    opened = datasets.open_data(data)
    cases = [_case(config, parts, data, batch, opened) for batch in parse_batches(config.batches)]
    place = begin("tune", config.out)
    found, entries = [], []
    with one_thread():
        for case in cases:
            samples = measure(case, config.repeats)
            entries.append(_entry(case, samples))
            found.append(_comparison(case, samples))
            show(f"--batch-size {case.settings.training.batch_size}: done")
    path = place.folder / "tuning.json"
    write_json(path, _tuning(config, parts, opened, entries))
    publish(place, config, found, show)
    show(f"tuning: sixfold train --tuning {path}")
    return found


def _case(
    config: TrainBenchConfig,
    parts: PartsBenchConfig,
    data: DataConfig,
    batch: int,
    opened: datasets.DataSet,
) -> Case:
    """What is measured of a batch size.

    Raises:
        UserError: if the network or the batch does not fit, or shards cannot be cut.
    """
    model = ModelConfig(model=config.model, model_args=parts.model_args)
    shape, classes = opened.shape, len(opened.classes)
    found = models.check(model, shape=shape, classes=classes)
    if batch > len(opened.train):
        found.append(
            f"--batches {config.batches}: the training part of {config.data} has only "
            f"{len(opened.train)} images"
        )
    if found:
        raise UserError(found)
    settings = TrainConfig(
        data=data,
        model=model,
        training=TrainingConfig(
            batch_size=batch, steps=1, precision=parts.precision, shards=parts.shards
        ),
    )
    network = models.build(model, shape=shape, classes=classes, seed=0)
    network = in_precision(network, parts.precision)
    plan = plan_batches(settings, opened, batch_norm=has_batch_norm(network))
    step = open_step(network, settings, shape)
    chosen = step.micro_batch
    if chosen.images is None:
        raise UserError(f"--model {config.model}: nothing to tune, because {chosen.obstacle}")
    shard = plan.shard(0, 0, plan.order(0))
    return Case(settings=settings, step=step, shard=shard, formula=chosen.images)


def candidates(samples: int, formula: int) -> list[int | None]:
    """Images of a piece that are tried; None is the whole shard, the first.

    Of sizes that cut a shard into as many pieces only one is tried, the formula's before others.

    >>> candidates(31, 47), candidates(50, 47), candidates(200, 47)
    ([None, 8, 16], [None, 8, 16, 47], [None, 8, 16, 32, 47, 64, 128])
    """
    sizes = [formula, *(SMALLEST << k for k in range(samples.bit_length()))]
    by_count: dict[int, int] = {}
    for size in sizes:
        by_count.setdefault(-(-samples // size), size)
    by_count.pop(1, None)
    return [None, *sorted(by_count.values())]


def measure(case: Case, repeats: int) -> dict[int | None, list[float]]:
    """Microseconds of processor time an image, of every candidate in turns."""
    tried = candidates(len(case.shard.labels), case.formula)
    out = case.step.new_payload()
    counts = {size: max(1, round(SAMPLE_S / _seconds(case, size, out, 1))) for size in tried}
    samples: dict[int | None, list[float]] = {size: [] for size in tried}
    for _ in range(repeats):
        for size in tried:
            seconds = _seconds(case, size, out, counts[size])
            samples[size].append(1e6 * seconds / len(case.shard.labels))
    return samples


def _seconds(case: Case, size: int | None, out: torch.Tensor, count: int) -> float:
    """Of the middle one of so many computations."""
    case.step.micro_batch = MicroBatch(images=size)
    times = []
    for _ in range(count):
        begun = time.thread_time()  # another process's turn is not ours
        case.step.shard_payload(0, case.shard, out)
        times.append(time.thread_time() - begun)
    return statistics.median(times)


def _entry(case: Case, samples: dict[int | None, list[float]]) -> dict[str, Any]:
    training = case.settings.training
    return {
        "batch_size": training.batch_size,
        "shards": training.shards,
        "shard_images": len(case.shard.labels),
        "micro_batch": min(samples, key=lambda size: statistics.median(samples[size])),
        "formula": case.formula,
        "us_per_image": {
            _name(size): {"samples": times, **dataclasses.asdict(spread(times))}
            for size, times in samples.items()
        },
    }


def _comparison(case: Case, samples: dict[int | None, list[float]]) -> Comparison:
    model, training = case.settings.model, case.settings.training
    found = Comparison(
        title=(
            f"{model.model}, {training.precision}, B = {training.batch_size}: a shard of "
            f"{len(case.shard.labels)} images in pieces, one thread"
        ),
        unit="microseconds of processor time an image",
        form=",.0f",
        less_is_better=True,
        what={"sixfold": "forward and backward of a logical shard"},
        notes=[f"the formula says {case.formula} images"],
    )
    for size, times in samples.items():
        found.extend("sixfold", _name(size), times)
    return found


def _name(size: int | None) -> str:
    return WHOLE if size is None else str(size)


def _tuning(
    config: TrainBenchConfig,
    parts: PartsBenchConfig,
    opened: datasets.DataSet,
    entries: list[dict[str, Any]],
) -> Tuning:
    return {
        "sixfold_tuning": VERSION,
        "model": config.model,
        "model_args": parts.model_args,
        "shape": list(opened.shape),
        "classes": len(opened.classes),
        "precision": parts.precision,
        "machine": {
            "processor": processor_name(),
            "cores": cores(),
            "platform": platform.platform(),
        },
        "versions": versions(),
        "made": time.time(),
        "entries": entries,
    }
