"""Kernel times by shape: how long layers take that were never run here, forward and backward.

Layers of random shapes are timed, all cores busy at once, and for each kind the logarithm of the
time is fitted by a quadratic in the logarithms of: operations, bytes, the length of the sums
(kernel x input channels), output channels, and whether the input's gradient is wanted. Small and
odd shapes run far below a machine's peak, and large ones out of its caches; both are in the fit
since both are in the sample. A network's step is then the sum over its layers, as
`sixfold.perf.profile.layer_costs` counts them.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sixfold.perf.profile.cost import FunctionCost, LayerCost
from sixfold.perf.profile.layers import layer_costs
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.native import winograd
from sixfold.training.native.max_pool import MaxPoolReLU2d

Floats = NDArray[np.float64]

PER_KIND = {
    "conv": 120,
    "conv 3x3": 40,
    "depthwise": 40,
    "linear": 40,
    "pool": 25,
    "fused pool": 25,
    "norm": 30,
    "pointwise": 30,
}
"""Shapes of each kind, convolutions differing most; "conv 3x3" are those that
`sixfold.training.native.winograd` computes."""
MOST_FLOPS, MOST_BYTES = 4e8, 4e7
_CONVOLUTIONS = ("conv", "conv 3x3", "depthwise")
REPEATS = 3
RIDGE = 1e-2
_FREE = {"flatten", "reshape", "view", "squeeze", "identity", "dropout", "getitem"}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A layer that was timed: its kind, its features, and seconds forward and backward."""

    kind: str
    features: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The fit."""

    weights: dict[str, tuple[float, ...]]  # of each kind, for the features that `_expand` makes
    # least value of each feature that was seen; nothing below is believed
    low: dict[str, tuple[float, ...]]
    high: dict[str, tuple[float, ...]]  # greatest value
    # of each kind, the median relative error at shapes that the fit had not seen
    error: dict[str, float]

    def seconds(self, kind: str, features: Sequence[float]) -> float:
        """Of a call, forward and backward.

        Beyond the largest work that was timed, time grows as the work does.
        """
        inside = np.clip(features, self.low[kind], self.high[kind])
        value = float(_expand(inside[None])[0] @ np.asarray(self.weights[kind]))
        beyond = max(features[0] - inside[0], features[1] - inside[1], 0.0)
        return float(np.exp(value + beyond))


def kind_of(cost: FunctionCost) -> str | None:
    """The kind of a function; None if it costs nothing.

    A convolution whose sums are shorter than its input has channels is one by groups.
    """
    if cost.name in _FREE or not cost.forward_bytes or not cost.output_shape:
        return None
    if cost.name == "conv2d":
        channels = cost.input_shapes[0][1] if cost.input_shapes else 1
        if _reduction(cost) < channels:
            return "depthwise"
        return "conv 3x3" if _is_for_winograd(cost) else "conv"
    if cost.name == "max_pool_relu":
        return "fused pool"
    if cost.name in ("linear", "addmm", "matmul"):
        return "linear"
    return next((kind for kind in ("pool", "norm") if kind in cost.name), "pointwise")


def _is_for_winograd(cost: FunctionCost) -> bool:
    """By shapes, of which the kernel's is the length of the sums over the channels."""
    if not winograd.is_used() or not cost.input_shapes or len(cost.input_shapes[0]) != 4:
        return False
    (_, channels, *size), (_, maps, *out) = cost.input_shapes[0], cost.output_shape
    has_unit_steps = all(abs(a - b) <= 2 for a, b in zip(size, out, strict=True))
    of_nine = round(_reduction(cost)) == 9 * channels
    return of_nine and has_unit_steps and winograd.suit_channels(channels, maps)


def _reduction(cost: FunctionCost) -> float:
    return cost.forward_flops / (2 * max(int(np.prod(cost.output_shape)), 1))


def features_of(cost: FunctionCost) -> tuple[float, ...]:
    """Logarithms of operations, bytes, length of the sums, channels; and the share backward."""
    flops = max(cost.forward_flops + cost.backward_flops, 1)
    count_bytes = max(cost.forward_bytes + cost.backward_bytes, 1)
    channels = cost.output_shape[1] if len(cost.output_shape) > 1 else 1
    return (
        float(np.log(flops)),
        float(np.log(count_bytes)),
        float(np.log(max(_reduction(cost), 0.1))),
        float(np.log(channels)),
        cost.backward_flops / max(cost.forward_flops, 1),
    )


def _expand(features: Floats) -> Floats:
    """(n, f) -> (n, 1 + f + f(f+1)/2): all terms up to the second degree."""
    count = features.shape[1]
    columns = [np.ones(len(features)), *features.T]
    columns += [features[:, i] * features[:, j] for i in range(count) for j in range(i, count)]
    found: Floats = np.stack(columns, axis=1)
    return found


def fit(samples: Sequence[Sample]) -> Kernels:
    """Fit every kind of which there are samples."""
    weights, low, high, error = {}, {}, {}, {}
    for kind in dict.fromkeys(sample.kind for sample in samples):
        own = [sample for sample in samples if sample.kind == kind]
        features = np.array([sample.features for sample in own])
        times = np.log([sample.seconds for sample in own])
        low[kind], high[kind] = tuple(features.min(axis=0)), tuple(features.max(axis=0))
        weights[kind] = tuple(_solve(features, times).tolist())
        errors = []
        for fold in range(5):
            held = np.arange(len(own)) % 5 == fold
            if held.any() and not held.all():
                solved = _solve(features[~held], times[~held])
                errors += np.abs(np.expm1(_expand(features[held]) @ solved - times[held])).tolist()
        error[kind] = float(np.median(errors)) if errors else 1.0
    return Kernels(weights=weights, low=low, high=high, error=error)


def _solve(features: Floats, times: Floats) -> Floats:
    """Least squares with a little ridge on scaled columns; the constant is left free."""
    matrix = _expand(features)
    scale = np.maximum(np.abs(matrix).mean(axis=0), 1e-9)
    ridge = np.eye(matrix.shape[1]) * np.sqrt(RIDGE)
    ridge[0, 0] = 0.0
    left = np.vstack([matrix / scale, ridge])
    right = np.concatenate([times, np.zeros(len(ridge))])
    found: Floats = np.linalg.lstsq(left, right, rcond=None)[0] / scale
    return found


def network_s(kernels: Kernels, costs: Iterable[LayerCost]) -> float:
    """Seconds of a step's forward and backward pass over a shard."""
    took = 0.0
    for layer in costs:
        for cost in layer.functions:
            kind = kind_of(cost)
            if kind not in kernels.weights and kind in _CONVOLUTIONS:
                kind = "conv"  # of a table that was measured before these were a kind
            if kind is not None and kind in kernels.weights:
                took += kernels.seconds(kind, features_of(cost))
    return took


def measure_kernels(seed: int, seconds: float) -> list[Sample]:
    """Time layers of random shapes, all kinds in turns, until the time is over."""
    random = np.random.default_rng(seed)
    found: list[Sample] = []
    deadline = time.perf_counter() + seconds
    left = dict(PER_KIND)
    while any(left.values()) and time.perf_counter() < deadline:
        kind = max(left, key=lambda name: left[name] / PER_KIND[name])
        sample = _time(kind, *_draw(kind, random))
        if sample is not None:
            left[kind] -= 1
            found.append(sample)
    return found


def _draw(kind: str, random: np.random.Generator) -> tuple[nn.Module, tuple[int, ...], bool]:
    """A layer of a random shape, its input's shape, and whether the input's gradient is wanted."""

    def one(*values: int) -> int:
        return int(random.choice(values))

    n, channels = one(1, 2, 4, 8, 16, 25, 32), one(1, 3, 8, 16, 20, 32, 64, 128, 192)
    side = one(1, 2, 4, 7, 8, 14, 16, 28, 32, 64, 128)
    wanted = bool(random.random() < 0.75)
    if kind == "conv":
        out, kernel, stride = one(6, 16, 20, 32, 50, 64, 128, 192), one(1, 3, 5), one(1, 1, 2)
        # torch 2.13 dies in the backward pass of some convolutions of kernel 1 and stride 2 whose
        # input lies channels last: Conv2d(8, 32, 1, stride=2) on (2, 8, 128, 128), for one.
        stride = 1 if kernel == 1 else stride
        layer: nn.Module = nn.Conv2d(
            channels, out, kernel, stride=stride, padding=kernel // 2, bias=bool(one(0, 1))
        )
    elif kind == "conv 3x3":
        channels, side = one(32, 48, 64, 128, 256), one(2, 4, 7, 8, 14, 16, 28)
        layer = nn.Conv2d(channels, one(32, 64, 128, 256), 3, padding=1, bias=bool(one(0, 1)))
    elif kind == "depthwise":
        channels = max(channels, 8)
        layer = nn.Conv2d(
            channels, channels, 3, stride=one(1, 1, 2), padding=1, groups=channels, bias=False
        )
    elif kind == "linear":
        width = one(64, 120, 300, 512, 800, 1280, 3200, 8192)
        return nn.Linear(width, one(2, 10, 84, 100, 300, 500)), (n, width), wanted
    elif kind == "pool":
        side = max(side, 2)
        layer = nn.MaxPool2d(2) if one(0, 1) else nn.AvgPool2d(2)
    elif kind == "fused pool":
        side = max(side, 3)
        layer = MaxPoolReLU2d(nn.MaxPool2d(one(2, 2, 3), stride=2), relu=bool(one(0, 1)))
    elif kind == "norm":
        layer, n = nn.BatchNorm2d(max(channels, 3)), max(n, 2)
        channels = max(channels, 3)
        side = max(side, 2)
    else:
        layer = nn.ReLU() if one(0, 1) else nn.ReLU6()
    return layer, (n, channels, side, side), wanted or kind not in _CONVOLUTIONS


def _time(kind: str, layer: nn.Module, shape: tuple[int, ...], wanted: bool) -> Sample | None:
    """Processor seconds of a layer forward and backward, the least of some; None if too large."""
    whole = nn.Sequential(nn.Identity(), layer)
    image = shape[1:] if len(shape) == 4 else (shape[1], 1, 1)
    if len(shape) == 2:
        whole = nn.Sequential(nn.Flatten(), layer)
    costs = layer_costs(whole, (image[0], image[1], image[2]), shape[0], loss=False)
    cost = costs[-1].functions[0]
    if wanted and kind in (*_CONVOLUTIONS, "linear"):
        cost = _with_input_gradient(cost)
    features = features_of(cost)
    if features[0] > np.log(MOST_FLOPS) or features[1] > np.log(MOST_BYTES):
        return None
    x = torch.randn(shape)
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    parameters = list(layer.parameters())
    run = LayerExecutor(nn.Sequential(layer), parameters).run
    out = [torch.zeros_like(parameter) for parameter in parameters]
    took = []
    with torch.no_grad():
        for _ in range(REPEATS + 1):
            began = time.thread_time()
            y, saved = run.forward(x, wanted)
            run.backward(saved, torch.ones_like(y), out, wanted)
            took.append(time.thread_time() - began)
    return Sample(kind=kind_of(cost) or kind, features=features, seconds=max(min(took[1:]), 1e-7))


def _with_input_gradient(cost: FunctionCost) -> FunctionCost:
    """The cost with the input's gradient, which a network's first layer does without."""
    inputs = sum(int(np.prod(shape)) for shape in cost.input_shapes)
    return dataclasses.replace(
        cost, backward_flops=2 * cost.forward_flops, backward_bytes=cost.backward_bytes + 4 * inputs
    )


def samples_as_plain(samples: Iterable[Sample]) -> list[list[Any]]:
    """As plain data."""
    return [[s.kind, list(s.features), s.seconds] for s in samples]


def samples_from_plain(rows: Iterable[Sequence[Any]]) -> list[Sample]:
    """The opposite of `samples_as_plain`."""
    return [Sample(kind=k, features=tuple(f), seconds=s) for k, f, s in rows]
