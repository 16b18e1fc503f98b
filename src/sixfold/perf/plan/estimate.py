"""A network that was never run here, put in the form of rehearsals: from kernel times by shape.

Less sure than a rehearsal by far (docs/plan.md has the errors), and enough for a network that one
does not want to run, or for a machine that is known by its calibration alone. Groups of
`model_parallel` and parameter servers are not estimated.
"""

from collections.abc import Iterable

from torch import nn

from sixfold.models.shapes import Shape
from sixfold.perf.plan.calibration import Machine, Network, Point
from sixfold.perf.plan.kernels import Kernels, fit, network_s, samples_from_plain
from sixfold.perf.plan.profiling_run import ProfilingCase
from sixfold.perf.profile.layers import layer_costs
from sixfold.training.config import TrainConfig
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool
from sixfold.training.step.rules import state_vectors

STEP_S = 1e-4
"""What Python does in a step besides its layers: the log, the queue, the loop. Median over the
rehearsals of small networks, `python -m benchmarks.planning`."""
PASSES = 5
"""Over a vector's bytes by an update with momentum: three vectors read, two written."""


def estimate(
    config: TrainConfig,
    network: nn.Module,
    shape: Shape,
    machine: Machine,
    cases: Iterable[ProfilingCase],
) -> Network:
    """What rehearsals would find, by arithmetic, for a network on the meta device.

    A point for every case but those of groups; `shape` is (C, H, W) of an image.
    """
    kernels = fit(samples_from_plain(machine.kernels))
    itemsize = 8 if config.training.precision == "float64" else 4
    numbers = sum(parameter.numel() for parameter in network.parameters())
    numbers += sum(b.numel() for b in network.buffers() if b.is_floating_point())
    count_bytes = numbers * itemsize
    slots = state_vectors(config.optimizer)
    update_s = PASSES * count_bytes / (3 * machine.adding_bytes_per_s)
    model = fused_max_pool(relu_behind_max_pool(network))
    points = [
        _point(kernels, model, shape, case, machine, count_bytes, slots, update_s)
        for case in cases
        if not case.mesh
    ]
    return Network(
        payload_bytes=count_bytes,
        parameter_bytes=count_bytes,
        slots=slots,
        points=tuple(points),
        update_s=update_s,
        shared_update_s=update_s,
    )


def _point(
    kernels: Kernels,
    model: nn.Module,
    shape: Shape,
    case: ProfilingCase,
    machine: Machine,
    count_bytes: int,
    slots: int,
    update_s: float,
) -> Point:
    exchanges: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    held = 0
    if case.merge:
        # Weights and the optimizer's state, a slice to each of two workers and back.
        vector = count_bytes * (1 + slots)
        exchanges = (((vector // 2,), (vector // 2,)),) * 2
        took = 2 * vector / machine.adding_bytes_per_s
    else:
        costs = layer_costs(model, shape, max(round(case.shard), 1))
        adding_s = count_bytes / machine.adding_bytes_per_s
        took = STEP_S + update_s + case.shards * (network_s(kernels, costs) + adding_s)
        held = sum(cost.kept_bytes + cost.output_bytes for cost in costs)
    return Point(
        mesh="",
        merge=case.merge,
        samples=case.samples,
        shards=case.shards,
        concurrency=case.concurrency,
        step_s=took,
        behind_s=0.0,
        clock_s=took,
        data_s=0.0,
        update_s=update_s,
        peak_bytes=machine.base_bytes + count_bytes * (4 + slots) + held,
        payload_bytes=count_bytes,
        exchanges=exchanges,
    )
