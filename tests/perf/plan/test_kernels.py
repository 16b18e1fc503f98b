"""Kernel times by shape: what the fit finds of times that follow a rule, and of real layers."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import sixfold
from sixfold.perf.plan.calibration import Calibration
from sixfold.perf.plan.estimate import estimate
from sixfold.perf.plan.kernels import (
    Sample,
    fit,
    kind_of,
    measure_kernels,
    network_s,
    samples_as_plain,
    samples_from_plain,
)
from sixfold.perf.plan.profiling_run import ProfilingCase
from sixfold.perf.profile.layers import layer_costs
from sixfold.training.native import winograd


def _samples(count: int) -> list[Sample]:
    """Times of 1 us and 1 ns for ten operations, whatever the shape."""
    random = np.random.default_rng(0)
    found = []
    for kind in ("conv", "linear", "pointwise", "pool", "norm", "fused pool"):
        for _ in range(count):
            flops, count_bytes = 10 ** random.uniform(3, 9, 2)
            shape = (np.log(flops), np.log(count_bytes), *random.uniform(0, 5, 2), 2.0)
            features = tuple(float(value) for value in shape)
            found.append(Sample(kind=kind, features=features, seconds=1e-6 + 1e-10 * flops))
    return found


def test_the_fit_finds_a_rule() -> None:
    kernels = fit(_samples(120))
    assert kernels.error["conv"] < 0.2
    took = kernels.seconds("conv", (np.log(1e8), np.log(1e6), 2.0, 3.0, 2.0))
    assert took == pytest.approx(1e-2, rel=0.25)


def test_beyond_what_was_timed_time_grows_as_work_does() -> None:
    kernels = fit(_samples(60))
    most = kernels.high["conv"]
    more = (most[0] + np.log(10), *most[1:])
    assert kernels.seconds("conv", more) == pytest.approx(10 * kernels.seconds("conv", most))


def test_kinds_are_told_apart() -> None:
    network = nn.Sequential(
        nn.Conv2d(8, 16, 3),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(576, 10),
    )
    costs = layer_costs(network, (8, 16, 16), 2, loss=False)
    kinds = [kind_of(cost) for layer in costs for cost in layer.functions]
    assert kinds == ["conv", "depthwise", "norm", "pointwise", "pool", None, "linear"]


@pytest.mark.skipif(not winograd.is_used(), reason="without the C module")
@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.Conv2d(32, 48, 3, padding=1), "conv 3x3"),
        (nn.Conv2d(32, 48, 3), "conv 3x3"),
        (nn.Conv2d(32, 48, 3, stride=2), "conv"),
        (nn.Conv2d(32, 48, 1), "conv"),
        (nn.Conv2d(16, 48, 3), "conv"),
    ],
)
def test_convolutions_with_fewer_multiplications_are_a_kind(layer: nn.Module, kind: str) -> None:
    costs = layer_costs(nn.Sequential(nn.Conv2d(3, layer.in_channels, 1), layer), (3, 16, 16), 2)  # type: ignore[arg-type]
    assert [kind_of(cost) for cost in costs[1].functions] == [kind]


def test_real_layers_are_timed_and_kept() -> None:
    samples = measure_kernels(0, seconds=1.5)
    assert samples_from_plain(samples_as_plain(samples)) == samples
    kernels = fit(samples)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    assert 1e-6 < network_s(kernels, layer_costs(network, (3, 16, 16), 4)) < 1.0


def test_an_estimate_has_the_form_of_rehearsals(calibration: Calibration) -> None:
    import dataclasses

    rows = samples_as_plain(_samples(40))
    machine = dataclasses.replace(calibration.machine, kernels=rows)
    config = sixfold.configure(model="lenet300")
    cases = [
        ProfilingCase(samples=8, shards=2),
        ProfilingCase(mesh="cout=2", samples=8, shards=2),
        ProfilingCase(samples=8, shards=2, merge=True),
    ]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to("meta")
    found = estimate(config, network, (1, 8, 8), machine, cases)
    assert [point.merge for point in found.points] == [False, True]
    assert found.parameter_bytes == 4 * 650
    assert all(point.step_s > 0 for point in found.points)
