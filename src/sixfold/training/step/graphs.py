"""CUDA graphs: a shard's forward and backward pass recorded once a shape, and replayed.

A small network's kernels take less time than it takes to launch them one by one; a graph launches
all of them at once. Recorded are networks of known layers alone: a graph does again what was done
once, which is wrong of a network that branches, or draws numbers, in Python.

Written after PyTorch's documentation ("CUDA graphs: whole-network capture"); never run on a GPU.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sixfold.training.layers.dropout import KeyedDropout
from sixfold.training.layers.rewrites import has_hooks
from sixfold.training.step.micro_batches import keeps_samples_apart

WARM_UPS = 3
"""Runs before a recording, as the documentation has it: libraries choose and allocate then."""


def can_be_recorded(model: nn.Module) -> bool:
    """Whether a network does the same each time, whatever the values.

    >>> can_be_recorded(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()))
    True
    """
    return not any(has_hooks(module) or not _repeats(module) for module in model.modules())


def _repeats(module: nn.Module) -> bool:
    if isinstance(module, KeyedDropout):
        return module.p == 0
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return module.momentum is not None  # otherwise it reads its counter on the host
    return keeps_samples_apart(module)


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]


class Graphs:
    """Replays a computation on images and what belongs to them, one graph for each shape.

    Args:
        compute: reads only what it is given and what stays where it is, and writes only there.
        device: a GPU.

    Attributes:
        failure: why nothing is recorded any more; empty as long as it works.
    """

    def __init__(self, compute: Callable[..., None], device: torch.device) -> None:
        self._compute, self._device = compute, device
        self._recorded: dict[torch.Size, _Recording] = {}
        self.failure = ""

    def run(self, images: Tensor, *others: Tensor) -> None:
        """Do what `compute` does.

        Args:
            images: (n, C, H, W) on the device.
            others: labels and weights of them, on the device; always as many.
        """
        if images.shape not in self._recorded and not self.failure:
            try:
                self._recorded[images.shape] = self._record(images, *others)
            except RuntimeError as error:
                self.failure = str(error).partition("\n")[0]
                torch.cuda.synchronize(self._device)
        found = self._recorded.get(images.shape)
        if found is None:
            self._compute(images, *others)
            return
        for place, value in zip(found.inputs, (images, *others), strict=True):
            place.copy_(value)
        found.graph.replay()

    def _record(self, *given: Tensor) -> _Recording:
        inputs = [value.clone() for value in given]
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    self._compute(*inputs)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Meanwhile the thread that reads images may pin memory: that is not the graph's affair.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._compute(*inputs)
        return _Recording(graph, inputs)
