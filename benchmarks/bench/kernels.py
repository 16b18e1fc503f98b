"""Layers forward and backward, beside PyTorch and the machine's limit.

One thread computes, as a rank does. Ours is what a training step runs: the links of
`sixfold.training.layers.executor` on images in the order N H W C. PyTorch's is autograd over the
same modules on images in the order N C H W, as most people have them. Both take turns in one
process.

The limit of convolutions and linear layers is their arithmetic at the rate of a large product of
matrices; that of the others is to read and write their maps once each way, at the rate of a copy
of such a size. Both rates are measured in the same run (`sixfold.perf.profile.machine`).

Legend: n images, C input and K output channels, H W rows and columns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.bench.comparison import Comparison
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig
from benchmarks.bench.publish import Show, begin, publish
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.perf.profile.limits import Machine
from sixfold.perf.profile.machine import measure_machine
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool

SAMPLE_S = 0.05
"""About how long a sample lasts."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer, or a few that are computed together, at a shape of a network of the zoo."""

    name: str  # of the row
    layers: Callable[[], list[nn.Module]]  # makes the modules
    shape: tuple[int, ...]  # (C, H, W) of their input
    products: bool  # whether they are convolutions or linear, so that arithmetic is their limit


def _conv(before: int, maps: int, kernel: int, *, groups: int = 1, bias: bool = False) -> nn.Module:
    return nn.Conv2d(before, maps, kernel, padding=kernel // 2, groups=groups, bias=bias)


CASES = (
    Case(
        name="conv 5x5 3-32 at 32x32 (slide)",
        layers=lambda: [_conv(3, 32, 5, bias=True)],
        shape=(3, 32, 32),
        products=True,
    ),
    Case(
        name="relu, max-pool 2x2 of 32 at 32x32 (slide)",
        layers=lambda: [nn.ReLU(), nn.MaxPool2d(2)],
        shape=(32, 32, 32),
        products=False,
    ),
    Case(
        name="linear 8192-10 (slide)",
        layers=lambda: [nn.Linear(8192, 10)],
        shape=(8192,),
        products=True,
    ),
    Case(
        name="conv 3x3 16-16 at 32x32 (resnet20)",
        layers=lambda: [_conv(16, 16, 3)],
        shape=(16, 32, 32),
        products=True,
    ),
    Case(
        name="batch-norm, relu of 16 at 32x32 (resnet20)",
        layers=lambda: [nn.BatchNorm2d(16), nn.ReLU()],
        shape=(16, 32, 32),
        products=False,
    ),
    Case(
        name="conv 1x1 24-144 at 32x32 (mobilenet_v2)",
        layers=lambda: [_conv(24, 144, 1)],
        shape=(24, 32, 32),
        products=True,
    ),
    Case(
        name="depthwise 3x3 of 144 at 32x32 (mobilenet_v2)",
        layers=lambda: [_conv(144, 144, 3, groups=144)],
        shape=(144, 32, 32),
        products=False,
    ),
    Case(
        name="batch-norm, relu6 of 144 at 32x32 (mobilenet_v2)",
        layers=lambda: [nn.BatchNorm2d(144), nn.ReLU6()],
        shape=(144, 32, 32),
        products=False,
    ),
    Case(
        name="conv 3x3 64-64 at 32x32 (vgg16)",
        layers=lambda: [_conv(64, 64, 3, bias=True)],
        shape=(64, 32, 32),
        products=True,
    ),
    Case(
        name="conv 3x3 512-512 at 4x4 (vgg16)",
        layers=lambda: [_conv(512, 512, 3, bias=True)],
        shape=(512, 4, 4),
        products=True,
    ),
    Case(
        name="conv 3x3 512-512 at 2x2 (vgg16)",
        layers=lambda: [_conv(512, 512, 3, bias=True)],
        shape=(512, 2, 2),
        products=True,
    ),
)


def run_kernels_bench(
    config: TrainBenchConfig, parts: PartsBenchConfig, *, show: Show
) -> Comparison:
    """Measure, show the table, and write `kernels.json` and `kernels.html`."""
    place = begin("kernels", config.out)
    images = parts.images
    show("measuring the machine's limits")
    machine = measure_machine(precisions=("float32",))
    found = Comparison(
        title=f"Layers forward and backward, {images} images, one thread",
        unit="microseconds of processor time",
        form=",.0f",
        less_is_better=True,
        what={
            "sixfold": "the links of a training step, images as N H W C",
            "pytorch": "autograd over the same modules, images as N C H W",
        },
        limit_name=f"matrix products at {machine.peak_flops() / 1e9:,.0f} GFLOP/s, or copies",
    )
    with one_thread():
        for case in CASES:
            sides = _sides(case, images)
            counts = {name: _count(call) for name, call in sides.items()}
            for _ in range(config.repeats):
                for name, call in sides.items():
                    found.add(name, case.name, 1e6 * _sample(call, counts[name]))
            found.limits[case.name] = 1e6 * limit_s(case, images, machine)
            show(f"{case.name}: done")
    publish(place, config, [found], show)
    return found


def limit_s(case: Case, images: int, machine: Machine) -> float:
    """Seconds that a case would take at the machine's limit.

    Products: forward, and the gradients of input and weights, each as much arithmetic. Others:
    the input read and the output written; backward both read, and the input's gradient written.
    """
    x = torch.zeros(images, *case.shape)
    y = nn.Sequential(*case.layers())(x)
    if case.products:
        (layer,) = case.layers()
        weight: Tensor = layer.weight  # type: ignore[assignment]
        operations = 2.0 * y.numel() * weight.numel() / weight.shape[0]
        return float(3 * operations / machine.peak_flops())
    moved = x.element_size() * (3 * x.numel() + 2 * y.numel())
    size = max(x.numel(), y.numel()) * x.element_size()
    return float(moved / machine.bandwidth(array_bytes=size))


def _sides(case: Case, images: int) -> dict[str, Callable[[], object]]:
    """Forward and backward by ours and by PyTorch, of the same weights and numbers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, *case.shape, generator=generator)
    plain = nn.Sequential(*case.layers()).train()
    ours = nn.Sequential(*case.layers()).train()
    ours.load_state_dict(plain.state_dict())
    grad = torch.randn(plain(x).shape, generator=generator)
    return {"sixfold": _by_links(ours, x, grad), "pytorch": _by_autograd(plain, x, grad)}


def _by_links(model: nn.Sequential, x: Tensor, grad: Tensor) -> Callable[[], object]:
    fused_max_pool(relu_behind_max_pool(model))
    parameters = list(model.parameters())
    out = [torch.zeros_like(p) for p in parameters]
    executor = LayerExecutor(model, parameters)
    x, grad = (_last(t) for t in (x, grad))

    def call() -> None:
        with torch.no_grad():
            _, saved = executor.run.forward(x, True)
            executor.run.backward(saved, grad, out, True)

    return call


def _by_autograd(model: nn.Sequential, x: Tensor, grad: Tensor) -> Callable[[], object]:
    inputs = [x.requires_grad_(), *model.parameters()]
    return lambda: torch.autograd.grad(model(x), inputs, grad)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _count(call: Callable[[], object]) -> int:
    """Calls of a sample."""
    call()
    return max(3, round(SAMPLE_S / max(_sample(call, 3), 1e-6)))


def _sample(call: Callable[[], object], count: int) -> float:
    """Seconds of the middle one of so many calls."""
    return statistics.median(_times(call, count))


def _times(call: Callable[[], object], count: int) -> Iterator[float]:
    for _ in range(count):
        begun = time.thread_time()  # another process's turn is not ours
        call()
        yield time.thread_time() - begun
