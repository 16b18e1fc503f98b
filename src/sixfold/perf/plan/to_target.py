"""Time to a target (`--to accuracy=0.9`): epochs that each way needs, times what they take."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.html.axes import duration
from sixfold.core.html.page import Section, Table
from sixfold.distributed.engines import Engine
from sixfold.perf.plan.candidates import Candidate, Prediction, candidates
from sixfold.perf.plan.config import PlanningConfig
from sixfold.perf.plan.cost import Price
from sixfold.perf.plan.learning_curve import MEASURED, TOO_FEW, Curve, Need, epochs_needed
from sixfold.perf.plan.model import Model
from sixfold.perf.plan.ranking import prediction_plain, ranked
from sixfold.perf.plan.target_probes import SERIAL, Learning, learning_of, probe_all
from sixfold.training.config import TrainConfig
from sixfold.training.selection import Target, parse_target, seconds


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What one way takes to the target, with batches of one size; infinite if it never gets there.

    `low_s` and `high_s` come of the epochs' interval alone.
    """

    prediction: Prediction
    batch_size: int
    need: Need
    total_s: float
    low_s: float
    high_s: float
    core_hours: float


@dataclass(frozen=True, kw_only=True)
class TargetPlan:
    """All ways to a target, the quickest first."""

    target: Target
    found: tuple[Reach, ...]
    notes: tuple[str, ...]
    price: Price

    @property
    def name(self) -> str:
        """For titles."""
        return f"{self.target.metric} {self.target.value:g}"


def batch_sizes(text: str) -> list[int]:
    """The numbers of `--batch-sizes`; a `UserError` if it is not of this form.

    >>> batch_sizes("10,100"), batch_sizes("")
    ([10, 100], [])
    """
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"--batch-sizes {text}: expected whole numbers, such as 10,100")
    return list(dict.fromkeys(map(int, words)))


def target_problems(planning: PlanningConfig, validation: float) -> list[str]:
    """What cannot be read, or does not go together, a line each."""
    found: list[str] = []
    readers: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: parse_target(planning.to, "--to"), planning.to),
        (lambda: seconds(planning.probe, "--probe"), planning.probe),
        (lambda: batch_sizes(planning.batch_sizes), planning.batch_sizes),
    )
    for read, text in readers:
        try:
            if text:
                read()
        except UserError as error:
            found += error.problems
    if not planning.to:
        given = planning.batch_sizes and f"--batch-sizes {planning.batch_sizes}"
        return [*found, *([f"{given}: only with --to"] if given else [])]
    if not validation:
        found.append(
            f"--to {planning.to}: is looked for on validation images, never on the test set: set "
            "some aside with --validation 0.1"
        )
    if not planning.measure_network:
        found.append(
            f"--to {planning.to}: needs short trainings, so not with --measure-network false"
        )
    return found


def predict_sizes(
    model: Model, config: TrainConfig, workers: int, fitting: Sequence[Any], sizes: Sequence[int]
) -> dict[int, list[Prediction]]:
    """All ways for several batch sizes."""
    found = {}
    for size in sizes:
        images = model.work.steps * model.work.batch_size
        work = dataclasses.replace(model.work, batch_size=size, steps=max(round(images / size), 1))
        sized = dataclasses.replace(model, work=work)
        training = dataclasses.replace(config.training, batch_size=size)
        ways = candidates(dataclasses.replace(config, training=training), workers, fitting)
        found[size] = ranked([sized.predict(way) for way in ways if sized.knows(way)])
    return found


def plan_target(
    config: TrainConfig,
    predictions: dict[int, list[Prediction]],
    images: int,
    target: Target,
    price: Price,
    *,
    start_s: float,
    probe_s: float,
    folder: Path,
    engine: Engine,
    on_event: OnEvent,
) -> TargetPlan:
    """Probe how the ways learn, and say how long each takes to the target."""
    quickest: dict[Learning, tuple[Candidate, float]] = {}
    for size, found in predictions.items():
        for one in found:
            learning = learning_of(one, size)
            if learning is not None and one.fits and not one.candidate.mesh:
                quickest.setdefault(learning, (one.candidate, one.mean_s))
    ways = [(learning, way, batch_s) for learning, (way, batch_s) in quickest.items()]
    curves, notes = probe_all(config, ways, images, target, probe_s, folder, engine, on_event)
    needs = {learning: _need(learning, curves, target) for learning in curves}
    reaches = [
        _reach(one, size, needs[learning], images, price, start_s)
        for size, found in predictions.items()
        for one in found
        if (learning := learning_of(one, size)) in needs and one.fits
    ]
    reaches.sort(key=lambda reach: (reach.total_s, reach.prediction.mean_s))
    if any(one.candidate.strategy == "param_server" for one in predictions[min(predictions)]):
        notes.append(
            "param_server is left out: its workers never meet, so a short training of it has no "
            "evaluations"
        )
    if any(reach.need.how != MEASURED and reach.need.is_known for reach in reaches):
        notes.append(
            "epochs that are not measured are estimates from short trainings at the same learning "
            "rate; a schedule that lowers the rate later is not in them: a longer --probe makes "
            "them surer"
        )
    return TargetPlan(target=target, found=tuple(reaches), notes=tuple(notes), price=price)


def _need(learning: Learning, curves: dict[Learning, Curve], target: Target) -> Need:
    serial = curves.get(Learning(SERIAL, 0, learning.batch_size))
    own = curves[learning]
    return epochs_needed(own, target, serial if serial is not own else None)


def _reach(
    prediction: Prediction, size: int, need: Need, images: int, price: Price, start_s: float
) -> Reach:
    epoch_s = prediction.mean_s * images / size
    total_s = start_s + need.epochs * epoch_s
    return Reach(
        prediction=prediction,
        batch_size=size,
        need=need,
        total_s=total_s,
        low_s=start_s + need.low * epoch_s,
        high_s=start_s + need.high * epoch_s,
        core_hours=price.core_hours(prediction, total_s),
    )


def target_table(plan: TargetPlan) -> Table:
    """For page and terminal."""
    head = ["way", "workers", "batch size", f"epochs to {plan.name}", "9 of 10", "time", "9 of 10"]
    head += [plan.price.head, "epochs are"]
    return Table(
        head=tuple(head),
        rows=[
            (
                reach.prediction.candidate.name,
                str(reach.prediction.candidate.workers),
                str(reach.batch_size),
                _number(reach.need.epochs),
                f"{_number(reach.need.low)} to {_number(reach.need.high)}",
                _time(reach.total_s),
                f"{_time(reach.low_s)} to {_time(reach.high_s)}",
                plan.price.cell(reach.core_hours),
                reach.need.how,
            )
            for reach in plan.found
        ],
        texts=(0, len(head) - 1),
    )


def target_sentence(plan: TargetPlan) -> str:
    """Which way is quickest to the target."""
    if plan.found and all(reach.need.how == TOO_FEW for reach in plan.found):
        return f"The probes have too few evaluations to tell of {plan.name}: give a longer --probe."
    if not plan.found or not plan.found[0].need.is_known:
        return f"No way is expected to reach {plan.name}: nothing in the probes points there."
    first = plan.found[0]
    text = (
        f"Quickest to {plan.name} is {first.prediction.candidate.title} with {first.batch_size} "
        f"images a batch: {_number(first.need.epochs)} epochs ({first.need.how}), "
        f"{_time(first.total_s)} ({_time(first.low_s)} to {_time(first.high_s)})"
    )
    cheapest = min(plan.found, key=lambda reach: reach.core_hours)
    if cheapest is first:
        return f"{text}; nothing takes fewer core hours."
    return (
        f"{text}; fewest core hours takes {cheapest.prediction.candidate.title} with "
        f"{cheapest.batch_size} images a batch, {_number(cheapest.core_hours)} instead of "
        f"{_number(first.core_hours)}."
    )


def target_section(plan: TargetPlan) -> Section:
    """For the page."""
    return Section(
        title=f"Time to {plan.name}",
        lead="On the validation part. Epochs are read from short trainings; times are these epochs "
        "at the mean time of a batch, and the start. Evaluations are left out.",
        blocks=[target_table(plan)],
    )


def target_plain(plan: TargetPlan) -> dict[str, Any]:
    """As plain data; what is infinite is null."""
    return {
        "metric": plan.target.metric,
        "value": plan.target.value,
        "ways": [
            {
                **{
                    name: value
                    for name, value in prediction_plain(reach.prediction).items()
                    if name in ("strategy", "grid", "workers", "result", "mean_s")
                },
                "batch_size": reach.batch_size,
                "epochs": _plain(reach.need.epochs),
                "epochs_interval": [_plain(reach.need.low), _plain(reach.need.high)],
                "epochs_are": reach.need.how,
                "total_s": _plain(reach.total_s),
                "total_s_interval": [_plain(reach.low_s), _plain(reach.high_s)],
                "core_hours": _plain(reach.core_hours),
                **plan.price.plain(reach.core_hours),
            }
            for reach in plan.found
        ],
        "notes": list(plan.notes),
    }


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "never"


def _time(value: float) -> str:
    return duration(value) if math.isfinite(value) else "never"
