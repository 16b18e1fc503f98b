"""Shards of a single image, of which a norm over the batch has no statistics.

How many images each step and each of its logical shards has follows from the settings and the
number of training images, so such a training is refused before anything is started.
"""

import dataclasses
from collections.abc import Iterator

from sixfold.distributed.logical_shards import shard_bounds, shard_count
from sixfold.models.checking import fails_on_one_image
from sixfold.models.shapes import Shape
from sixfold.training.config import TrainConfig
from sixfold.training.step.schedule import budget

_FARTHEST = 64  # how far from the given batch size a remedy is searched


def lone_image_problems(
    config: TrainConfig, workers: int, *, images: int, shape: Shape, classes: int
) -> list[str]:
    """Why a network that needs several images would meet a shard of one; empty if it never does."""
    if not any(_lone(config, workers, images, norm=norm) for norm in (False, True)):
        return []
    divided = config.strategy.strategy == "model_parallel"
    why, norm = fails_on_one_image(config.model, shape=shape, classes=classes, divided=divided)
    lone = _lone(config, workers, images, norm=norm)
    if not why or not lone:
        return []
    return [
        f"--batch-size {config.training.batch_size}: {lone}, on which {config.model.model} cannot "
        f"be trained: {why}; give {_remedy(config, workers, images, norm=norm)}"
    ]


def _lone(config: TrainConfig, workers: int, images: int, *, norm: bool) -> str:
    """Which shard has a single image, with the arithmetic; with batch-norm shards are larger."""
    whole = norm and config.training.batch_norm == "sync"
    for size, what in _sizes(config, workers, images):
        count = shard_count(size, batch_norm=norm, wanted=config.training.shards)
        if size == 1:
            return f"{what} has a single image"
        if not whole and shard_bounds(size, count, 0)[1] == 1:
            return f"{what} has {size} images in {count} logical shards, the first with one image"
    return ""


def _sizes(config: TrainConfig, workers: int, images: int) -> Iterator[tuple[int, str]]:
    """How many images a step takes that computes on its own, and what it is called."""
    batch, length = config.training.batch_size, budget(config.training, images)
    is_whole_epoch = length.total_steps >= length.steps_per_epoch
    yield min(batch, images), "a step"
    rest = images % batch
    if rest and is_whole_epoch:
        parts = f"{images:,} = {images // batch:,} x {batch:,} + {rest:,}"
        yield rest, f"the last step of an epoch ({parts})"
    if config.strategy.strategy != "local_sgd" or workers == 1 or workers > batch:
        return
    for worker in range(workers):
        low, high = shard_bounds(batch, workers, worker)
        share = images * high // batch - images * low // batch
        yield high - low, f"a step of worker {worker} of {workers} (of {batch:,} images)"
        if is_whole_epoch and share % (high - low):
            yield share % (high - low), f"the last step of worker {worker}'s {share:,} images"


def _remedy(config: TrainConfig, workers: int, images: int, *, norm: bool) -> str:
    batch, shards = config.training.batch_size, config.training.shards
    tries: list[tuple[int, int | None, str]] = []
    if shards and shards > 1:
        tries.append((batch, shards // 2, f"--shards {shards // 2}"))
    least = max(shards or 1, workers if config.strategy.strategy == "local_sgd" else 1)
    for far in range(1, _FARTHEST):
        sizes = (batch - far, batch + far)
        tries += [(b, shards, f"--batch-size {b}") for b in sizes if least < b <= images]
    for size, count, text in tries:
        training = dataclasses.replace(config.training, batch_size=size, shards=count)
        if not _lone(dataclasses.replace(config, training=training), workers, images, norm=norm):
            return text
    return "another --batch-size"
