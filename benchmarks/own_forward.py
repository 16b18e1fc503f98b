"""A user's own forward as a graph of links, beside the same network left to autograd.

Processor time of one thread for a shard, forward and backward, taken in turns:

python benchmarks/own_forward.py
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the users' name

from sixfold.distributed.process_group.malloc import retain_freed_memory
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool

IMAGES, REPEATS, CALLS = 25, 9, 2


class Block(nn.Module):
    """Two convolutions beside the input, or a projection of it."""

    def __init__(self, before: int, maps: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, maps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != maps:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, maps, 1, stride, bias=False), nn.BatchNorm2d(maps)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, H/stride, W/stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet20(nn.Module):
    """With projections in its shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        sizes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2
        sizes += [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 10)."""
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(torch.flatten(F.avg_pool2d(x, 8), 1))
        return logits


class Pooled(nn.Module):
    """Max-pools behind ReLU, as functions, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32 * 8 * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 10)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = x + F.relu(self.conv2(x))
        x = F.max_pool2d(F.relu(x), 2)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


def passes(network: nn.Module, x: Tensor, *, whole: bool) -> Callable[[], None]:
    """Forward and backward over a shard."""
    fused_max_pool(relu_behind_max_pool(network))
    parameters = list(network.parameters())
    executor = LayerExecutor(network, parameters, whole=whole)
    out = [torch.empty_like(parameter) for parameter in parameters]

    def run() -> None:
        y, saved = executor.forward(x)
        executor.backward(saved, torch.ones_like(y), out)

    run()
    assert executor.autograd_fallback() == []
    return run


def main() -> None:
    """Measure, and print medians with their range."""
    torch.set_num_threads(1)
    retain_freed_memory()  # as ranks do
    torch.manual_seed(0)
    x = torch.randn(IMAGES, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for network in (Pooled(), ResNet20()):
        runs = [passes(copy.deepcopy(network), x, whole=whole) for whole in (True, False)]
        times: list[list[float]] = [[], []]
        for _ in range(REPEATS):
            for run, found in zip(runs, times, strict=True):
                begin = time.process_time()
                for _ in range(CALLS):
                    run()
                found.append(1e6 * (time.process_time() - begin) / CALLS / IMAGES)
        ratios = sorted(a / b for a, b in zip(*times, strict=True))
        words = [f"{median(f):,.0f} ({min(f):,.0f}-{max(f):,.0f}) us an image" for f in times]
        print(
            f"{type(network).__name__}: autograd {words[0]}, graph {words[1]}, "
            f"ratio {median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
