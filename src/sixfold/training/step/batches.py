"""From the number of a step to the samples of its shards."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sixfold.core.random_keys import key
from sixfold.data import Augment, BatchMaker, DataSet, parse_augment, permutation
from sixfold.data.augmentation.mixing import combine, paste
from sixfold.data.augmentation.moves import mirrored_at_first
from sixfold.data.augmentation.spec import Mix
from sixfold.data.splits import by_windows, file_windows
from sixfold.distributed.logical_shards import owned_shards, shard_bounds, shard_count
from sixfold.distributed.process_group import Communicator
from sixfold.training.config import TrainConfig
from sixfold.training.losses.partners import Partners
from sixfold.training.losses.registry import sample_weights
from sixfold.training.step.device import CUDA
from sixfold.training.step.schedule import TrainingLength, budget
from sixfold.training.step.step import Shard

BLOCK_IMAGES, BLOCK_PIXELS = 256, 1 << 20
"""Shards are read together up to so many images, or so many numbers in them; larger ones come one
by one. Every block wakes the thread that reads beside the one that computes, and the two
hand the interpreter over and back: with blocks of 64 images a step of 100 took a fifth longer."""


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which samples each shard of each step has; the same on every rank.

    Attributes:
        data: the data set; steps take its training part.
        budget: batch size and length of the run.
        seed: of the run.
        make_batch: reads and normalises images.
        augment: what is done to training images.
        batch_norm: whether the network has batch-norm, which wants larger shards.
        wanted_shards: `--shards`.
        device: makes images ready from their pixels; None: they are made ready here.
        weights: (N,) how much each training image counts; None: all the same.
        shuffle_files: files of tensor shards whose images are visited at a time; None: all.
    """

    data: DataSet
    budget: TrainingLength
    seed: int
    make_batch: BatchMaker
    augment: Augment
    batch_norm: bool
    wanted_shards: int | None
    device: torch.device | None = None
    weights: NDArray[Any] | None = None
    shuffle_files: int | None = None

    def place(self, step: int) -> tuple[int, int, int]:
        """Epoch of a step (both from 0), and its first and one-past-last place in that epoch.

        Plans of a worker's own share (`local_sgd`) lie elsewhere than the run's.
        """
        return self.budget.place(step)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The training images in the order in which an epoch visits them."""
        order, files = permutation(self.seed, epoch, self.budget.images), self.data.train.files
        if self.shuffle_files is None or files is None:
            return order
        return by_windows(order, files, self._windows(epoch))

    def _windows(self, epoch: int) -> list[NDArray[np.int64]]:
        """Which files of tensor shards an epoch visits at a time."""
        files = self.data.train.files
        count = 0 if files is None else int(files.max(initial=-1)) + 1
        return file_windows(self.seed, epoch, count, self.shuffle_files or max(count, 1))

    def _expect(self, epoch: int, order: NDArray[np.int64]) -> None:
        """Tell the data which files come next, from the first of the rest of an epoch's order."""
        files = self.data.train.files
        if files is not None and len(order):
            own = self._windows(epoch)
            first = next(place for place, window in enumerate(own) if files[order[0]] in window)
            windows = [*own[first:], *self._windows(epoch + 1)]
            self.data.train.expect([window.tolist() for window in windows])

    def count(self, step: int) -> int:
        """L, the number of logical shards of a step (from 0)."""
        _, start, stop = self.place(step)
        return shard_count(stop - start, batch_norm=self.batch_norm, wanted=self.wanted_shards)

    def shard(self, step: int, index: int, order: NDArray[np.int64]) -> Shard:
        """Load one shard.

        Args:
            step: number of the step, from 0.
            index: number of the shard.
            order: the permutation of the step's epoch.
        """
        return next(self._read([self._place(step, index, order)]))

    def made_up_shard(self, most: int | None) -> Shard:
        """A shard of random pixels, the same on every host, as large as those of the first step.

        Args:
            most: images of a piece of a shard, where those are computed piece by piece.
        """
        count, (_, start, stop) = self.count(0), self.place(0)
        bounds = (shard_bounds(stop - start, count, index) for index in range(count))
        images = max(last - first for first, last in bounds)
        pieces = 1 if most is None else -(-images // most)
        place = _Place(0, 0, np.arange(-(-images // pieces)))
        shape = (len(place.indices), *self.data.train.shape)
        # Python's own generator, whose bytes are the same in every version of every library.
        drawn = random.Random(key(self.seed, "canary")).randbytes(math.prod(shape))
        pixels = np.frombuffer(drawn, np.uint8).reshape(shape).astype(self.data.dtype)
        return next(self._shards([place], place.indices, pixels))

    def own_shards(self, comm: Communicator, first_step: int) -> Iterator[Shard]:
        """This rank's shards of all steps from `first_step` on, in order.

        Small shards are read and normalised several at a time: what that costs besides the
        pixels' own work would otherwise be a third of the time of a step of ten images.
        """
        most = min(BLOCK_IMAGES, BLOCK_PIXELS // math.prod(self.data.train.shape))
        block: list[_Place] = []
        images = 0
        for place in self._own_places(comm, first_step):
            block.append(place)
            images += len(place.indices)
            if images >= most:
                yield from self._read(block)
                block, images = [], 0
        if block:
            yield from self._read(block)

    def _own_places(self, comm: Communicator, first_step: int) -> Iterator[_Place]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(first_step, self.budget.total_steps):
            if self.place(step)[0] != epoch:
                epoch = self.place(step)[0]
                order = self.order(epoch)
                self._expect(epoch, order[self.place(step)[1] :])
            for index in owned_shards(self.count(step), comm.size, comm.rank):
                yield self._place(step, index, order)

    def _place(self, step: int, index: int, order: NDArray[np.int64]) -> _Place:
        _, start, stop = self.place(step)
        first, last = shard_bounds(stop - start, self.count(step), index)
        return _Place(step, index, order[start + first : start + last])

    def _read(self, places: list[_Place]) -> Iterator[Shard]:
        """Load the samples of some shards at once."""
        indices = np.concatenate([place.indices for place in places])
        return self._shards(places, indices, self._pixels(places, indices))

    def _shards(
        self, places: list[_Place], indices: NDArray[np.int64], pixels: NDArray[Any]
    ) -> Iterator[Shard]:
        """The shards of some images, given their pixels."""
        part = self.data.train
        ends = np.cumsum([len(place.indices) for place in places]).tolist()
        runs = [slice(start, end) for start, end in pairwise([0, *ends])]
        labels = torch.from_numpy(self.make_batch.truth(part, indices))
        weights = None if self.weights is None else torch.from_numpy(self.weights[indices])
        pixels, mixes = self._augmented(places, pixels)
        on_host = self.device is None
        images = self.make_batch.normalise(pixels) if on_host else pixels
        for place, run, mix in zip(places, runs, mixes, strict=True):
            if on_host and mix is not None:
                combine(images[run], mix)
            own = None if weights is None else weights[run]
            shard = Shard(
                index=place.shard,
                images=torch.from_numpy(images[run]),
                labels=labels[run],
                weights=own,
                partners=None if mix is None else Partners.of(labels[run], own, mix.share),
            )
            yield shard if on_host else self._for_device(place, shard, mix)

    def _augmented(
        self, places: list[_Place], pixels: NDArray[Any]
    ) -> tuple[NDArray[Any], list[Mix | None]]:
        """Pixels after everything that is done before they are normalised, and what is mixed."""
        augment = self.augment
        keys = [key(self.seed, "augment", place.step, place.shard) for place in places]
        counts = [len(place.indices) for place in places]
        if not augment:
            return pixels, [None] * len(places)
        if self.device is None or not augment.only_moves:
            shards = list(zip(counts, keys, strict=True))
            mirrored = [self._mirrored(place) for place in places]
            pixels = augment.apply_to_shards(pixels, shards, self.make_batch.mean_pixel, mirrored)
        size = pixels.shape[2], pixels.shape[3]
        mixes = [augment.mix(n, size, drawn) for n, drawn in zip(counts, keys, strict=True)]
        start = 0
        for count, mix in zip(counts, mixes, strict=True):
            if mix is not None:
                paste(pixels[start : start + count], mix)
            start += count
        return pixels, mixes

    def _mirrored(self, place: _Place) -> NDArray[np.bool_] | None:
        """Which images of a shard are mirrored in its epoch, where epochs take turns."""
        if not self.augment.alternate:
            return None
        return self._at_first[place.indices] ^ bool(self.place(place.step)[0] % 2)

    @cached_property
    def _at_first(self) -> NDArray[np.bool_]:
        return mirrored_at_first(self.seed, self.budget.images)

    def _pixels(self, places: list[_Place], indices: NDArray[np.int64]) -> NDArray[Any]:
        part, reread = self.data.train, self.data.reread
        if reread is None:
            return part.images(indices)
        read = [
            reread.images(part, place.indices, self.seed, self.place(place.step)[0])
            for place in places
        ]
        return np.concatenate(read)

    def _for_device(self, place: _Place, shard: Shard, mix: Mix | None) -> Shard:
        """A shard whose images the device makes ready: pixels, and what was drawn for them."""
        draws, pixels, labels = None, shard.images, shard.labels
        if self.augment and self.augment.only_moves:
            drawn_by = key(self.seed, "augment", place.step, place.shard)
            draws = self.augment.draws(len(pixels), drawn_by, self._mirrored(place))
        if self.device is not None and self.device.type == CUDA:
            with torch.cuda.device(self.device):  # else every rank would open the first GPU too
                pixels, labels = pixels.pin_memory(), labels.pin_memory()
        return dataclasses.replace(shard, images=pixels, labels=labels, draws=draws, mix=mix)


class _Place(NamedTuple):
    """A shard of a step, and which images it has."""

    step: int
    shard: int
    indices: NDArray[np.int64]


def plan_batches(
    config: TrainConfig, data: DataSet, *, batch_norm: bool, device: torch.device | None = None
) -> BatchPlan:
    """The batches that the settings ask for.

    Args:
        config: the settings, checked.
        data: the data set.
        batch_norm: whether the network has batch-norm.
        device: makes images ready; None: the host does.
    """
    training = config.training
    make_batch = BatchMaker(data, "float64" if training.precision == "float64" else "float32")
    weights = sample_weights(config.loss, data)
    return BatchPlan(
        data=data,
        budget=budget(training, len(data.train)),
        seed=training.seed,
        make_batch=make_batch,
        augment=parse_augment(config.data.augment),
        batch_norm=batch_norm,
        wanted_shards=training.shards,
        device=device,
        weights=None if weights is None else weights.astype(make_batch.dtype),
        shuffle_files=config.data.shuffle_files,
    )
