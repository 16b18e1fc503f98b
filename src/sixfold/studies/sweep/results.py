"""From what became of a sweep's members to the figures that `result.json` holds."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sixfold.core.run_directory import typed
from sixfold.distributed.tasks import Outcome
from sixfold.studies.sweep.config import SweepQualityConfig, SweepTimeConfig
from sixfold.studies.sweep.fits import FittedLaw, Spread
from sixfold.studies.sweep.plan import Plan, chosen_names
from sixfold.studies.sweep.quality import Cell, Effect, Trained, cells, chosen, effects
from sixfold.studies.sweep.scaling import (
    AMOUNTS,
    Point,
    amdahl,
    ernest,
    ernest_whole,
    gustafson,
    series,
    speedups,
)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The figures of one timed training."""

    images_per_s: float | None
    step_s: float | None  # the batch over it
    # Mean seconds of a step over ranks and the steps behind the third, by what they went to.
    parts: dict[str, float]
    startup_s: float
    wall_s: float
    training_s: float
    steps: int
    load_before: float | None = None  # processes that wanted to run on the machine


@dataclass(kw_only=True)
class TimedRow:
    """A combination that was to be timed."""

    values: dict[str, Any]  # what is varied, by name
    workers: int
    batch_size: int
    strategy: str
    engine: str
    images: int | None = None  # `--max-images`
    refused: str | None = None  # why it could not be run
    repeats: list[Timing] = field(default_factory=list)
    # The rest is known where there are repeats; speed-ups where it was run on one worker too.
    images_per_s: Spread | None = None
    step_s: Spread | None = None
    steps: int = 0
    startup_s: float | None = None
    parts: dict[str, float] = field(default_factory=dict)  # mean seconds of a step
    speedup: Spread | None = None
    efficiency: Spread | None = None
    over_serial: Spread | None = None  # against one synchronous worker
    flops_per_image: float | None = None  # forward and backward
    weight_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class TimeResult:
    """What a sweep over time has measured."""

    what: str = "time"
    varied: dict[str, list[Any]]
    points: list[TimedRow]
    laws: list[FittedLaw]
    repeats: int
    load_before: Spread | None


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """A training of a sweep over quality."""

    values: dict[str, Any]
    refused: str | None = None  # why it could not be run
    diverged: str | None = None
    accuracy: float | None = None  # on the validation part, or the test part if there is none
    test_accuracy: float | None = None
    test_loss: float | None = None
    validation_accuracy: float | None = None
    steps: int | None = None
    training_s: float | None = None
    train_images_per_s: float | None = None
    parameters: int | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class QualityResult:
    """What the trainings of a sweep have reached, and what each setting does to it."""

    what: str = "quality"
    varied: dict[str, list[Any]]
    chosen: list[str]  # settings whose best value was chosen
    trainings: list[TrainingRow]
    cells: list[Cell]
    effects: list[Effect]
    test_images: int


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What the result of every sweep holds."""

    failures: dict[str, str]
    versions: dict[str, str]
    wall_s: float


def time_result(config: SweepTimeConfig, plan: Plan, outcome: Outcome) -> TimeResult:
    """Every combination with its speed, speed-up and efficiency; and the laws."""
    rows = [_time_row(number, plan, outcome) for number in range(len(plan.combinations))]
    points = [(row, _point(row)) for row in rows if row.repeats]
    known = [point for _, point in points]
    row_of = {id(point): row for row, point in points}
    strong = series(known, "workers")
    for own in strong:
        for point, figures in zip(own, speedups(own), strict=True):
            if figures:
                row_of[id(point)].speedup, row_of[id(point)].efficiency = figures
    _add_serial(rows)
    draws = config.sweep.bootstrap
    both = series(known, "workers", "batch_size")
    laws = [amdahl(own, draws) for own in strong]
    laws += [law for own in both for law in gustafson(own, draws)]
    laws += [ernest(own, draws) for own in both]
    if not plan.varied.keys().isdisjoint(AMOUNTS):
        laws += [ernest_whole(own, draws) for own in series(known, "workers", *AMOUNTS)]
    loads = [one.load_before for row in rows for one in row.repeats if one.load_before is not None]
    return TimeResult(
        varied=plan.varied,
        points=rows,
        laws=[law for law in laws if law is not None],
        repeats=config.sweep.repeats,
        load_before=Spread.of(loads) if loads else None,
    )


def _point(row: TimedRow) -> Point:
    timed = [(one, one.images_per_s or 0.0, one.step_s or 0.0) for one in row.repeats]
    return Point(
        values=row.values,
        workers=row.workers,
        batch_size=row.batch_size,
        rates=tuple(rate for _, rate, _ in timed),
        images=row.steps * row.batch_size,
        whole_s=tuple(one.startup_s + one.steps * step_s for one, _, step_s in timed),
    )


def _add_serial(rows: list[TimedRow]) -> None:
    """Where strategies are varied, how fast each is against one synchronous worker."""

    def others(row: TimedRow) -> tuple[tuple[str, Any], ...]:
        return tuple(item for item in row.values.items() if item[0] not in ("strategy", "workers"))

    alone = {
        others(row): _point(row)
        for row in rows
        if row.strategy == "sync" and row.workers == 1 and row.repeats
    }
    for row in rows:
        base = alone.get(others(row))
        if base is not None and row.repeats and "strategy" in row.values:
            pairs = zip(_point(row).rates, base.rates, strict=False)
            row.over_serial = Spread.of([own / one for own, one in pairs])


def _time_row(number: int, plan: Plan, outcome: Outcome) -> TimedRow:
    one = plan.combinations[number]
    repeats = {
        repeat: outcome.results[name]
        for name, (which, repeat) in plan.of.items()
        if which == number and repeat >= 0 and name in outcome.results
    }
    own = [repeats[repeat] for repeat in sorted(repeats)]
    timed = [typed(Timing, found) for found in own if found.get("step_s")]
    trouble = [found[why] for why in ("refused", "diverged") for found in own if why in found]
    row = TimedRow(
        values=dict(one.values),
        workers=one.config.engine.workers or 1,
        batch_size=one.config.training.batch_size,
        strategy=one.config.strategy.strategy,
        engine=one.config.engine.engine,
        images=one.config.data.max_images,
        refused=trouble[0] if trouble else None,
        repeats=timed,
    )
    if timed:
        row.images_per_s = Spread.of([found.images_per_s or 0.0 for found in timed])
        row.step_s = Spread.of([found.step_s or 0.0 for found in timed])
        row.steps = timed[0].steps
        row.startup_s = float(np.median([found.startup_s for found in timed]))
        row.parts = {
            name: float(np.mean([found.parts.get(name, 0.0) for found in timed]))
            for name in timed[0].parts
        }
    return row


def quality_result(
    config: SweepQualityConfig, plan: Plan, outcome: Outcome, images: int
) -> QualityResult:
    """Every combination with what it reached; means over seeds; and what each setting does."""
    rows = [
        typed(
            TrainingRow,
            {"values": dict(plan.combinations[number].values), **outcome.results.get(name, {})},
        )
        for name, (number, _) in plan.of.items()
    ]
    trained = [
        Trained(
            values=row.values,
            accuracy=row.test_accuracy,
            loss=math.nan if row.test_loss is None else row.test_loss,
            validation=math.nan if row.validation_accuracy is None else row.validation_accuracy,
        )
        for row in rows
        if row.test_accuracy is not None
    ]
    varied = plan.varied
    names = chosen_names(config)
    if names:
        trained = chosen(trained, names, [row.values for row in rows if row.diverged])
    others = {name: values for name, values in varied.items() if name not in names}
    return QualityResult(
        varied=varied,
        chosen=names,
        trainings=rows,
        cells=cells(trained, images),
        effects=effects(trained, others, images),
        test_images=images,
    )
