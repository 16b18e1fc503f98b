"""Images/s of training at several batch sizes, compared with two peers; a table a network.

All contenders make the same number of steps on the same images with the same network and plain
SGD with momentum, each in processes of its own; each is timed inside, from the end of step 3 to
the last. They take turns, so that whatever else the machine does falls on all of them, and ratios
are taken repeat by repeat.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from benchmarks.bench.comparison import Comparison
from benchmarks.bench.contenders import (
    NotMeasuredError,
    Task,
    cores,
    pytorch,
    pytorch_eager,
    sixfold_bf16,
    sixfold_local,
    torch_distributor,
    torchrun,
)
from benchmarks.bench.options import TrainBenchConfig, parse_batches, problems
from benchmarks.bench.publish import Show, begin, publish
from sixfold.core.checks import unknown
from sixfold.core.errors import RunError, UserError
from sixfold.data.config import DataConfig
from sixfold.models.config import ModelConfig
from sixfold.training.worker import FIRST_TIMED_STEP

CALIBRATION_S = 1.0

Measure = Callable[[Task], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """Someone who is measured."""

    name: str
    what: str  # what exactly runs
    measure: Measure  # images/s of a task; raises NotMeasuredError


PEERS = ("eager", "channels-last", "compile", "torchrun", "bf16", "autocast")
"""Who is measured beside Sixfold if nothing else is asked for."""


FLOAT32 = ("eager", "channels-last", "compile", "torchrun", "ddp")
RIVALS = {"sixfold": FLOAT32, "bf16": (*FLOAT32, "autocast")}
"""Among whom the fastest is looked for: whoever may take bfloat16 may leave it, too."""


def contenders(workers: int, peers: Sequence[str] = PEERS) -> list[Contender]:
    """Sixfold first, then those of its peers that are wanted.

    Raises:
        UserError: if there is no such peer.
    """
    known = {contender.name: contender for contender in _peers(workers)}
    wrong = ["--peers: " + unknown("peer", peer, known) for peer in peers if peer not in known]
    if wrong:
        raise UserError(wrong)
    return [
        Contender(
            name="sixfold",
            what=f"sixfold train, local engine, {workers} workers of one thread",
            measure=sixfold_local,
        ),
        *(known[peer] for peer in dict.fromkeys(peers)),
    ]


def _peers(workers: int) -> list[Contender]:
    return [
        Contender(
            name="channels-last",
            what=f"the plain loop with images and weights channels-last, {cores()} threads",
            measure=lambda task: pytorch(task, "channels_last"),
        ),
        Contender(
            name="compile",
            what=f"the same with torch.compile, {cores()} threads",
            measure=lambda task: pytorch(task, "channels_last", "compiled"),
        ),
        Contender(
            name="autocast",
            what=f"the plain loop channels-last, in autocast to bfloat16, {cores()} threads",
            measure=lambda task: pytorch(task, "channels_last", "autocast"),
        ),
        Contender(
            name="torchrun",
            what=f"torchrun with DistributedDataParallel over gloo, channels-last, {workers} "
            "processes of one thread",
            measure=torchrun,
        ),
        Contender(
            name="bf16",
            what=f"sixfold train --precision bf16, {workers} workers of one thread",
            measure=sixfold_bf16,
        ),
        Contender(
            name="eager",
            what=f"plain PyTorch loop, one process, {cores()} threads",
            measure=pytorch_eager,
        ),
        Contender(
            name="ddp",
            what=f"TorchDistributor (local mode) with DistributedDataParallel over gloo, "
            f"{workers} processes of one thread",
            measure=torch_distributor,
        ),
    ]


def run_train_bench(
    config: TrainBenchConfig, *, show: Show, peers: Sequence[str] = PEERS
) -> list[Comparison]:
    """Measure each network of `--model`, and write `train.json` and `train.html`.

    Raises:
        UserError: if the settings make no sense.
        RunError: if Sixfold itself could not be measured.
    """
    names = list(dict.fromkeys(name.strip() for name in config.model.split(",")))
    found = problems(config, FIRST_TIMED_STEP)
    found += [
        f"--model {name}: expected names such as slide, or resnet50@224:16 (side, batch)"
        for name in names
        if not re.fullmatch(WRITTEN, name)
    ]
    if found:
        raise UserError(found)
    place = begin("train", config.out)
    networks = [network_of(config, name) for name in names]
    resolved = [resolve(network) for network in networks]
    entered = contenders(config.workers, peers)
    for contender in entered:
        show(f"{contender.name}: {contender.what}")
    measured = []
    for network, data in zip(networks, resolved, strict=True):
        results = measure(network, data, entered, show)
        results.limits = dict.fromkeys(results.rows, limit_rate(network, data))
        measured.append(results)
    publish(place, config, measured, show)
    return measured


WRITTEN = r"([^@]+)(?:@([1-9]\d{0,3})(?::([1-9]\d{0,5}))?)?"
"""A network, and the side and the number of the images that it is measured with."""


def network_of(config: TrainBenchConfig, text: str) -> TrainBenchConfig:
    """The settings of one network of `--model`.

    >>> found = network_of(TrainBenchConfig(), "resnet50@224:16")
    >>> found.model, found.data, found.batches
    ('resnet50', 'synthetic:80x3x224x224', '16')
    """
    match = re.fullmatch(WRITTEN, text)
    assert match is not None, "checked before"
    name, side, batch = match.groups()
    if side is None:
        return dataclasses.replace(config, model=name)
    batches = batch or config.batches
    images = 5 * max(parse_batches(batches))
    data = f"synthetic:{images}x3x{side}x{side}"
    return dataclasses.replace(config, model=name, data=data, batches=batches)


def resolve(config: TrainBenchConfig) -> DataConfig:
    """The data, prepared so that every process opens it cheaply.

    Raises:
        UserError: if data or network are wrong, or a batch is larger than the training part.
    """
    from sixfold import data, models

    resolved = data.resolve(DataConfig(data=config.data))
    opened = data.open_data(resolved)
    found = models.check(
        ModelConfig(model=config.model), shape=opened.shape, classes=len(opened.classes)
    )
    large = [size for size in parse_batches(config.batches) if size > len(opened.train)]
    if large:
        found.append(
            f"--batches {config.batches}: the training part of {config.data} has only "
            f"{len(opened.train)} images"
        )
    if found:
        raise UserError(found)
    return resolved


def limit_rate(config: TrainBenchConfig, data: DataConfig) -> float:
    """Images/s if the network's arithmetic ran at the rate of large matrix multiplications.

    That is of as many cores as there are workers, all busy, measured here and now
    (`sixfold.perf.profile`); forward, backward and every layer's operations count.
    """
    from sixfold import data as datasets
    from sixfold import models
    from sixfold.perf.profile.layers import layer_costs, total
    from sixfold.perf.profile.machine import measure_machine

    opened = datasets.open_data(data)
    network = models.build(
        ModelConfig(model=config.model), shape=opened.shape, classes=len(opened.classes), seed=0
    )
    images = 16
    operations = total(layer_costs(network, opened.shape, images), "flops") / images
    machine = measure_machine(window_s=0.05, precisions=("float32",))
    busy = min(config.workers, machine.cores)
    return busy * machine.peak_flops(busy) / operations


def measure(
    config: TrainBenchConfig, data: DataConfig, entered: Sequence[Contender], show: Show
) -> Comparison:
    """All measurements: the contenders take turns at each batch size, again and again.

    Raises:
        RunError: if the first contender, Sixfold, could not be measured.
    """
    batches = parse_batches(config.batches)
    names = [contender.name for contender in entered]
    results = Comparison(
        title=f"Training {config.model} with {config.workers} workers, {config.data}",
        unit="images/s",
        form=",.0f",
        less_is_better=False,
        what={contender.name: contender.what for contender in entered},
        limit_name="matrix products",
        rivals={name: rivals for name, rivals in RIVALS.items() if name in names},
    )
    tasks = {batch: _task(config, data, batch) for batch in batches}
    for repeat in range(config.repeats):
        # Another one begins each time, so that none always runs on a hot or a cool machine.
        turn = repeat % len(entered)
        order = [*entered[turn:], *entered[:turn]]
        for batch in batches:
            _take_turns(order, tasks[batch], results, entered[0], f"repeat {repeat + 1}", show)
            if repeat == 0 and config.steps is None:
                longer = _chosen(tasks[batch], config.seconds, _fastest(results, batch))
                if (longer.steps or 0) > 2 * (tasks[batch].steps or 0):
                    # The machine was busy when the number of steps was chosen: begin anew.
                    tasks[batch] = longer
                    results.forget(row_of(batch))
                    show(f"batch {batch}: that was too short; again, with {longer.steps} steps")
                    _take_turns(order, longer, results, entered[0], "repeat 1", show)
    steps = ", ".join(f"{tasks[batch].steps} at {row_of(batch)}" for batch in batches)
    results.notes.append(f"steps of each measurement: {steps}")
    return results


def row_of(batch: int) -> str:
    """The name of a batch size's row."""
    return f"B = {batch}"


def _fastest(results: Comparison, batch: int) -> float:
    found = [results.spread(name, row_of(batch)) for name in results.contenders]
    return max(rate.most for rate in found if rate)


def _take_turns(
    order: Sequence[Contender],
    task: Task,
    results: Comparison,
    own: Contender,
    what: str,
    show: Show,
) -> None:
    """One measurement of each contender."""
    for contender in order:
        outcome = _attempt(contender, task, results, is_own=contender is own)
        show(f"{what}, batch {task.batch}: {contender.name} {outcome}")


def _attempt(contender: Contender, task: Task, results: Comparison, *, is_own: bool) -> str:
    """One measurement into the results, and in words; a peer that fails stops nothing."""
    if results.is_out(contender.name):
        results.add(contender.name, row_of(task.batch), None)
        return "not tried again"
    try:
        rate = contender.measure(task)
    except NotMeasuredError as error:
        if is_own:
            raise RunError(f"sixfold could not be measured: {error}") from error
        results.fail(contender.name, row_of(task.batch), str(error))
        return f"not measured: {error}"
    results.add(contender.name, row_of(task.batch), rate)
    return f"{rate:,.0f} images/s"


def steps_for(seconds: float, rate: float, batch: int, first_timed_step: int) -> int:
    """Steps that take about so long at so many images/s, and at least five timed ones.

    >>> steps_for(5.0, 2000.0, 100, 3), steps_for(5.0, 2000.0, 2000, 3)
    (103, 8)
    """
    return first_timed_step + max(5, round(seconds * rate / batch))


def _task(config: TrainBenchConfig, data: DataConfig, batch: int) -> Task:
    """What is measured at a batch size; a short run of the plain loop tells how many steps."""
    task = Task(
        spec=config.data,
        data=data,
        model=config.model,
        workers=config.workers,
        batch=batch,
        steps=config.steps,
        seconds=config.seconds,
        first_timed_step=FIRST_TIMED_STEP,
    )
    if config.steps is not None:
        return task
    try:
        rate = pytorch_eager(dataclasses.replace(task, seconds=min(CALIBRATION_S, config.seconds)))
    except NotMeasuredError as error:
        raise RunError(f"the plain PyTorch loop cannot run: {error}") from error
    return _chosen(task, config.seconds, rate)


def _chosen(task: Task, seconds: float, rate: float) -> Task:
    """The task with as many steps as take so long at so many images/s."""
    steps = steps_for(seconds, rate, task.batch, FIRST_TIMED_STEP)
    # The time limit of a process follows from the steps, where the fewest take longer.
    return dataclasses.replace(task, steps=steps, seconds=max(seconds, steps * task.batch / rate))
