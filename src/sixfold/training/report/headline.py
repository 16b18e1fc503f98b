"""The figures at the top of the report."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from sixfold.core.html.axes import duration, percent, plain
from sixfold.core.html.json_lines import label
from sixfold.core.html.page import Figure
from sixfold.core.html.settings import show
from sixfold.core.statistics import wilson
from sixfold.training.report.classes import Recall
from sixfold.training.report.record import Record

UNEVEN = 1.2  # classes are uneven if the largest has so many times the images of the smallest


def _figure(name: str, value: str, detail: str = "") -> Figure:
    return name, value, detail


def headline(record: Record, bars: Sequence[Recall]) -> list[Figure]:
    """The figures that are known, the most important first."""
    found = [*_quality(record, bars), *_speed(record)]
    return [figure for figure in found if figure[1]]


def _quality(record: Record, bars: Sequence[Recall]) -> list[Figure]:
    found = []
    test, loss = record.figure("test_accuracy"), record.figure("test_loss")
    if math.isfinite(test):
        found.append(_figure("Test accuracy", value=percent(test, 2), detail=_interval(bars)))
    elif last := _last_accuracy(record):
        found.append(last)
    found += _errors(record)
    counts = {bar.images for bar in bars if bar.images}
    balanced = record.figure("balanced_accuracy")
    if counts and max(counts) > UNEVEN * min(counts) and math.isfinite(balanced):
        detail = f"mean over classes of {min(counts):,} to {max(counts):,} images"
        found.append(_figure("Balanced accuracy", value=percent(balanced, 2), detail=detail))
    top5 = record.figure("top5_accuracy")
    if math.isfinite(top5):
        found.append(
            _figure("Top-5 accuracy", value=percent(top5, 2), detail=f"of {len(bars)} classes")
        )
    validation = record.figure("validation_accuracy")
    if math.isfinite(validation):
        best = record.figure("best_validation_accuracy")
        step = record.figure("best_step")
        # The best of the evaluations between epochs may be below the one at the end.
        detail = f"best {percent(best, 2)}, at step {plain(step)}" if best > validation else ""
        found.append(_figure("Validation accuracy", value=percent(validation, 2), detail=detail))
    if math.isfinite(loss):
        found.append(_figure("Test loss", value=plain(float(f"{loss:.4g}"))))
    return found


def _errors(record: Record) -> list[Figure]:
    shares = (
        ("test_subset_accuracy", "All labels right", "of the test images"),
        ("mean_average_precision", "Mean average precision", "over labels"),
        ("f1", "F1", "mean over classes or labels"),
    )
    errors = (
        ("test_mae", "Mean absolute error", "on the test images"),
        ("test_rmse", "Root mean squared error", ""),
        ("test_r2", "R²", "part of the variance that is explained"),
        ("auroc", "AUROC", "one half is guessing"),
        ("calibration_error", "Calibration error", "distance of confidence and accuracy"),
    )
    return [
        _figure(
            title,
            value=_short(value) if (name, title, detail) in errors else percent(value, 2),
            detail=detail,
        )
        for name, title, detail in (*shares, *errors)
        if math.isfinite(value := record.figure(name))
    ]


def _short(value: float) -> str:
    return plain(float(f"{value:.4g}"))


def _interval(bars: Sequence[Recall]) -> str:
    images, correct = sum(bar.images for bar in bars), sum(bar.correct for bar in bars)
    if not images:
        return ""
    low, high = wilson(correct, images)
    return f"{correct:,} of {images:,}; 95% interval {100 * low:.1f} to {percent(high)}"


def _last_accuracy(record: Record) -> Figure | None:
    """The newest evaluation of a run that has no result."""
    for part in ("validation", "test"):
        table = record.evaluations.get(part)
        if table is not None and math.isfinite(value := float(table["eval_accuracy"][-1])):
            return _figure(
                name=f"{part.capitalize()} accuracy",
                value=percent(value, 2),
                detail=f"at step {plain(table['step'][-1])}, the last evaluation",
            )
    return None


def _speed(record: Record) -> list[Figure]:
    result = record.result
    rate = record.figure("train_images_per_s")
    detail = "from the end of step 3 on, evaluation left out"
    if not math.isfinite(rate) and len(record.training):
        rates = record.training["images_per_s"]
        rate = float(np.median(rates[np.isfinite(rates)])) if np.isfinite(rates).any() else math.nan
        detail = "median of the logged steps"
    startup = record.figure("startup_s")
    workers = record.figure("workers")
    engine = label(result.get("engine") or record.setting("engine", "engine"))
    strategy = label(result.get("strategy") or record.setting("strategy", "strategy"))
    steps, epochs = record.figure("steps"), record.figure("epochs")
    if not math.isfinite(workers) and record.timelines:
        workers = float(len(record.timelines))
    of_startup = f"start-up {duration(startup)} of it" if math.isfinite(startup) else ""
    return [
        _figure(
            "Images per second",
            value=plain(round(rate)) if math.isfinite(rate) else "",
            detail=detail,
        ),
        _figure("Wall time", value=_known(duration, record.figure("wall_s")), detail=of_startup),
        _figure(
            "Steps",
            value=_known(plain, steps),
            detail=f"{plain(epochs)} epochs" if math.isfinite(epochs) else "",
        ),
        _figure(
            "Workers",
            value=_known(plain, workers),
            detail=" · ".join(
                word for word in (f"engine {engine}" if engine else "", strategy) if word
            ),
        ),
        _figure(
            "Parameters",
            value=_known(plain, record.figure("parameters")),
            detail=_trainable(record),
        ),
    ]


def _trainable(record: Record) -> str:
    whole, own = record.figure("parameters"), record.figure("trainable_parameters")
    if not math.isfinite(own):
        return ""
    return (
        "all trainable" if own == whole else f"{plain(own)} trainable, {plain(whole - own)} frozen"
    )


def _known(write: Callable[[float], str], value: float) -> str:
    return write(value) if math.isfinite(value) else ""


def subtitle(record: Record) -> str:
    """What was trained on what, and when, in one line."""
    model, data = record.setting("model", "model"), record.setting("data", "data")
    words = [f"{show(model)} on {show(data)}" if model and data else ""]
    times = record.training["time"]
    last = times[np.isfinite(times)][-1:] if len(times) else times
    if len(last):
        words.append(_date(float(last[0])))
    return " · ".join(word for word in words if word)


def _date(time_s: float) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return ""
