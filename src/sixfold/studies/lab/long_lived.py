"""The long-lived job: what training really runs, to which every design is compared.

One Spark job holds ranks that keep their images and weights from step to step; only gradients
travel, over the ranks' own sockets. Measured here on the same images as the designs: the
convolution alone (forward), and a whole step (forward, loss, backward, sum, update).
"""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sixfold.distributed.logical_shards import owned_shards, shard_bounds, shard_count
from sixfold.distributed.process_group import Communicator
from sixfold.studies.convolution.geometry import Geometry
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.problem import Problem
from sixfold.training.step.optimizer import Sgd
from sixfold.training.step.step import Shard, Step
from sixfold.training.strategies.sync.shard_sum import ShardSum

CLASSES = 10
LEARNING_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class LongLived:
    """What the long-lived job takes, on all slots."""

    forward_times_s: list[float]  # convolution of all images, of every pass
    step_times_s: list[float]  # a whole training step over all images, of every step
    start_s: float  # until its ranks had met, once
    forward_s: float  # median of a pass
    step_s: float  # median of a step

    @classmethod
    def of(cls, forward_s: list[float], step_s: list[float], start_s: float) -> LongLived:
        """From the times of all passes and steps."""
        return cls(
            forward_times_s=forward_s,
            step_times_s=step_s,
            start_s=start_s,
            forward_s=statistics.median(forward_s),
            step_s=statistics.median(step_s),
        )

    def and_again(self, later: LongLived) -> LongLived:
        """Both, so that a machine that was busy for a while does not shift all ratios."""
        return self.of(
            self.forward_times_s + later.forward_times_s,
            self.step_times_s + later.step_times_s,
            min(self.start_s, later.start_s),
        )


def network(geometry: Geometry) -> nn.Sequential:
    """Convolution, ReLU, max-pool 2x2, linear: the slide network with another convolution."""
    rows, columns = geometry.out
    pool = min(2, rows), min(2, columns)
    convolution = nn.Conv2d(
        geometry.channels,
        geometry.maps,
        geometry.kernel,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
    )
    features = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(pool))
    flat = geometry.maps * (rows // pool[0]) * (columns // pool[1])
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(flat, CLASSES))
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))


def long_lived(cluster: Cluster, problem: Problem, repeats: int) -> LongLived:
    """Measure it."""
    group = cluster.engine.run_ranks(_Rank(problem, repeats), cluster.slots)
    forward, steps = (
        [max(times) for times in zip(*(rank[kind] for rank in group.results), strict=True)]
        for kind in ("forward_s", "step_s")
    )
    return LongLived.of(forward, steps, group.startup_s)


def shard_of(problem: Problem, count: int, index: int) -> Shard:
    """The samples of a logical shard; labels are the images' numbers modulo the classes."""
    first, last = shard_bounds(problem.geometry.batch, count, index)
    images = np.stack([problem.image(number) for number in range(first, last)])
    labels = torch.arange(first, last) % CLASSES
    return Shard(index=index, images=torch.from_numpy(images), labels=labels)


@dataclass(frozen=True)
class _Rank:
    problem: Problem
    repeats: int

    def __call__(self, comm: Communicator) -> dict[str, list[float]]:
        return {"forward_s": self._forward(comm), "step_s": self._steps(comm)}

    def _forward(self, comm: Communicator) -> list[float]:
        """Times of the convolution over the blocks that are this rank's."""
        geometry = self.problem.geometry
        weights = torch.from_numpy(self.problem.weights())
        own = range(comm.rank, self.problem.blocks, comm.size)
        blocks = [torch.tensor(self.problem.images(block)) for block in own]
        times = []
        for _ in range(1 + self.repeats):
            comm.barrier()
            began = time.perf_counter()
            with torch.inference_mode():
                for images in blocks:
                    torch.nn.functional.conv2d(
                        images,
                        weights,
                        stride=geometry.stride,
                        padding=geometry.padding,
                        dilation=geometry.dilation,
                    )
            times.append(time.perf_counter() - began)
            comm.keep_alive()
        return times[1:]

    def _steps(self, comm: Communicator) -> list[float]:
        """Times of whole steps, over the logical shards that are this rank's."""
        torch.manual_seed(self.problem.seed)
        model = network(self.problem.geometry).to(getattr(torch, self.problem.dtype))
        step = Step(model, seed=self.problem.seed)
        total = step.new_payload()
        optimizer = Sgd(step.state.parameters, momentum=0.9, weight_decay=0.0)
        adder = ShardSum(comm, step, exact=True)
        count = shard_count(self.problem.geometry.batch)
        owned = owned_shards(count, comm.size, comm.rank)
        shards = [shard_of(self.problem, count, index) for index in owned]
        times = []
        for number in range(1 + self.repeats):
            comm.barrier()
            began = time.perf_counter()
            adder.add_up(number, count, iter(shards), total)
            totals = step.finish(total)
            optimizer.update(step.state.parameters, totals.gradient, LEARNING_RATE)
            times.append(time.perf_counter() - began)
        return times[1:]
