"""Which weights are the best, and when to stop: decided by evaluations on the validation part.

Nothing here sees the test set. A decision follows from the metrics of an evaluation and from
`Progress`, which lies in the checkpoints, so a run that is resumed decides as one that was not.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError
from sixfold.training.config import SelectionConfig, TrainConfig
from sixfold.training.progress import Progress
from sixfold.training.step.schedule_kinds import parse_kind

SMALLER_IS_BETTER = ("loss", "mae", "rmse", "calibration_error")
METRICS = (
    "accuracy",
    "balanced_accuracy",
    "top5_accuracy",
    "auroc",
    "f1",
    "precision",
    "recall",
    "mean_average_precision",
    "r2",
    *SMALLER_IS_BETTER,
)
"""Metrics that an evaluation may give; which of them depends on the data."""

PATIENCE = 5
"""Evaluations without an improvement after which a training stops, if no number is given."""

THRESHOLD = 1e-4
"""By what part a metric must improve not to be on a plateau, as torch's ReduceLROnPlateau."""

OUT_OF_TIME = "max_time"  # in the result: what ended a training that can be resumed
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


@dataclass(frozen=True)
class EarlyStopping:
    """What `--early-stopping` asks for."""

    metric: str
    patience: int  # evaluations


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Where a training stands still, to be judged by a metric of the validation part."""

    step: int  # so many steps done, or the next ones at which all ranks hold the same weights
    metric: str  # empty: accuracy, or loss where there is none


def early_stopping(text: str) -> EarlyStopping:
    """Read `METRIC[:PATIENCE]`; a `UserError` if it is not of this form.

    >>> early_stopping("loss:3")
    EarlyStopping(metric='loss', patience=3)
    """
    metric, colon, patience = text.partition(":")
    if metric.isdecimal() or (colon and not (patience.isdecimal() and int(patience) > 0)):
        raise UserError(
            f"--early-stopping {text}: expected METRIC[:PATIENCE] with a whole number of "
            "evaluations, such as loss:5"
        )
    if metric not in METRICS:
        raise UserError(f"--early-stopping {text}: {unknown('metric', metric, METRICS)}")
    return EarlyStopping(metric, int(patience) if colon else PATIENCE)


@dataclass(frozen=True)
class Target:
    """A metric's value that is good enough."""

    metric: str
    value: float

    def reached(self, found: float | None) -> bool:
        """Whether a value of the metric is as good, or better."""
        return quality(self.metric, found) >= quality(self.metric, self.value)


def parse_target(text: str, flag: str = "--stop-at") -> Target:
    """Read `METRIC=VALUE`; a `UserError` if it is not of this form.

    >>> parse_target("accuracy=0.9")
    Target(metric='accuracy', value=0.9)
    """
    metric, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise UserError(f"{flag} {text}: expected METRIC=VALUE, such as accuracy=0.9")
    if metric not in METRICS:
        raise UserError(f"{flag} {text}: {unknown('metric', metric, METRICS)}")
    return Target(metric, number)


def seconds(text: str, flag: str = "--max-time") -> float:
    """Read a time such as `90`, `90s`, `30m`, `1.5h` or `1h30m`; a `UserError` if it is none.

    >>> seconds("1h30m"), seconds("90")
    (5400.0, 90.0)
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not total > 0:
        raise UserError(f"{flag} {text}: expected a time such as 90s, 30m, 1.5h or 1h30m")
    return total


def quality(metric: str, value: float | None) -> float:
    """A metric as a number that is the larger, the better; what is no number is the worst."""
    if value is None or math.isnan(value):
        return -math.inf
    return -value if metric in SMALLER_IS_BETTER else value


def value_of(metric: str, found: float) -> float:
    """The metric's value, from its `quality`."""
    return -found if metric in SMALLER_IS_BETTER else found


def judged(
    progress: Progress, config: TrainConfig, metrics: Mapping[str, float | None], usual: str
) -> Progress:
    """What an evaluation on the validation part, at the step of `progress`, decides.

    `usual` is the metric by which the best is chosen if none is named; a `UserError` if one is
    named that the data do not have.
    """
    selection = config.selection
    metric = selection.best or usual
    found = quality(metric, pick("--best", metric, metrics))
    if progress.is_better(found):
        progress = dataclasses.replace(progress, best_step=progress.step, best_accuracy=found)
    if selection.early_stopping:
        progress = _patience(progress, early_stopping(selection.early_stopping), metrics)
    if selection.stop_at:
        target = parse_target(selection.stop_at)
        if target.reached(pick("--stop-at", target.metric, metrics)):
            stopped = f"{target.metric} has reached {target.value:g}"
            progress = dataclasses.replace(progress, stopped=stopped)
    kind, numbers = parse_kind(config.optimizer.schedule)
    if kind == "plateau":
        progress = on_plateau(progress, found, patience=int(numbers[0]), factor=numbers[1])
    return progress


def pick(flag: str, metric: str, metrics: Mapping[str, float | None]) -> float | None:
    """The metric that an option names, or a `UserError` with those that the data have."""
    if metric not in metrics:
        raise UserError(f"{flag} {metric}: the data have {', '.join(sorted(metrics))}")
    return metrics[metric]


def _patience(
    progress: Progress, wanted: EarlyStopping, metrics: Mapping[str, float | None]
) -> Progress:
    found = quality(wanted.metric, pick("--early-stopping", wanted.metric, metrics))
    if progress.stopping_best is None or found > progress.stopping_best:
        return dataclasses.replace(progress, stopping_best=found, without_better=0)
    without = progress.without_better + 1
    stopped = progress.stopped
    if without >= wanted.patience:
        stopped = f"early stopping: {wanted.metric} has not improved in {without} evaluations"
    return dataclasses.replace(progress, without_better=without, stopped=stopped)


def on_plateau(progress: Progress, found: float, *, patience: int, factor: float) -> Progress:
    """The learning rate's factor after an evaluation, as torch's ReduceLROnPlateau has it.

    So many evaluations without an improvement are let pass; `found` is the metric's `quality`.
    """
    best = progress.plateau_best
    if best is None or found > best + abs(best) * THRESHOLD:
        return dataclasses.replace(progress, plateau_best=found, plateau_bad=0)
    bad = progress.plateau_bad + 1
    if bad <= patience:
        return dataclasses.replace(progress, plateau_bad=bad)
    return dataclasses.replace(
        progress, plateau_bad=0, plateau_factor=progress.plateau_factor * factor
    )


def selects(config: TrainConfig) -> bool:
    """Whether anything in the course of a training is decided by the validation part."""
    selection = config.selection
    return bool(
        selection.best
        or selection.early_stopping
        or selection.stop_at
        or selection.final_weights == "best"
        or parse_kind(config.optimizer.schedule)[0] == "plateau"
    )


def text_problems(selection: SelectionConfig) -> list[str]:
    """What cannot be read, one line each."""
    found: list[str] = []
    readers: tuple[tuple[Callable[[str], object], str], ...] = (
        (early_stopping, selection.early_stopping),
        (parse_target, selection.stop_at),
        (seconds, selection.max_time),
    )
    for read, text in readers:
        try:
            if text:
                read(text)
        except UserError as error:
            found += error.problems
    if selection.best and selection.best not in METRICS:
        found.append(f"--best {selection.best}: {unknown('metric', selection.best, METRICS)}")
    for name in selection.callback:
        if ":" not in name:
            found.append(f"--callback {name}: write it as package.module:factory")
    return found


def selection_problems(config: TrainConfig) -> list[str]:
    """What settings of selecting and stopping do not go with, one line each."""
    selection, found = config.selection, text_problems(config.selection)
    given = {
        "--best": selection.best,
        "--early-stopping": selection.early_stopping,
        "--final-weights": selection.final_weights if selection.final_weights != "last" else "",
        "--stop-at": selection.stop_at,
        "--max-time": selection.max_time,
        "--callback": selection.callback[0] if selection.callback else "",
    }
    if config.optimizer.schedule.startswith("plateau"):
        given["--schedule"] = config.optimizer.schedule
    given = {flag: value for flag, value in given.items() if value}
    strategy, local = config.strategy.strategy, config.local_sgd
    if strategy == "param_server":
        found += [
            f"{flag} {value}: not with --strategy param_server, whose workers never meet; give sync"
            for flag, value in given.items()
        ]
    ends = {"--early-stopping", "--stop-at", "--max-time", "--callback"} & given.keys()
    if strategy == "local_sgd" and local.groups > 1:
        found += [
            f"{flag} {given[flag]}: not with --groups {local.groups}, which become one network at "
            "the end of the training only"
            for flag in sorted(ends)
        ]
    if selects_by_evaluations(config) and config.training.evaluate_every == 0:
        found.append("--evaluate-every 0: what is selected by evaluations needs some")
    return found


def selects_by_evaluations(config: TrainConfig) -> bool:
    """Whether evaluations within the training decide; a malformed schedule decides nothing."""
    try:
        return selects(config)
    except UserError:
        return False


def validation_problems(config: TrainConfig, images: int) -> list[str]:
    """A line if something is to be selected and there are no images to select on."""
    if images or not selects(config):
        return []
    return [
        "what is selected (--best, --early-stopping, --stop-at, --final-weights best, --schedule "
        "plateau) is selected on validation images, never on the test set, and there are none: "
        "set some aside with --validation 0.1"
    ]
