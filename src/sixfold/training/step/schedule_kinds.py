"""The learning rate's course over a training: how `--schedule` is written, and what it means."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a step lies in a training: numbers of steps, the warm-up left out."""

    step: int  # from 0
    total: int  # steps of the training
    per_epoch: int
    warm: int  # steps of the warm-up, which come before


Course = Callable[[tuple[float, ...], Place], float]
"""From the numbers behind the kind's name to the factor of the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of schedule."""

    form: str  # how it is written
    usual: tuple[float, ...]  # numbers that are taken where none are given
    needed: int = 0  # how many must be given
    factor: Course
    by_length: bool = False  # whether the first steps depend on the length of the training
    epochs_listed: bool = False  # whether the first number is a list of epochs


def _constant(_numbers: tuple[float, ...], _place: Place) -> float:
    return 1.0


def _cosine(_numbers: tuple[float, ...], place: Place) -> float:
    """Loshchilov and Hutter, "SGDR", 2017, without restarts."""
    return (1 + math.cos(math.pi * place.step / max(place.total, 1))) / 2


def _step(numbers: tuple[float, ...], place: Place) -> float:
    every, factor = numbers
    # The small term undoes the rounding of fractions such as 0.3 / 0.1.
    drops = int((place.step + place.warm) / (place.per_epoch * every) + 1e-9)
    return float(factor**drops)


def _multistep(numbers: tuple[float, ...], place: Place) -> float:
    *epochs, factor = numbers
    epoch = (place.step + place.warm) / place.per_epoch + 1e-9
    return float(factor ** sum(epoch >= given for given in epochs))


def _polynomial(numbers: tuple[float, ...], place: Place) -> float:
    return float((1 - place.step / max(place.total, 1)) ** numbers[0])


def _one_cycle(numbers: tuple[float, ...], place: Place) -> float:
    """Smith and Topin, "Super-convergence", 2018: up to the peak and down, along cosines."""
    rise, initial, final = numbers
    top = rise * place.total - 1
    if place.step <= top:
        begin, end, part = 1 / initial, 1.0, place.step / max(top, 1e-9)
    else:
        begin, end = 1.0, 1 / (initial * final)
        part = (place.step - top) / max(place.total - 1 - top, 1e-9)
    return end + (begin - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2


def _restarts(numbers: tuple[float, ...], place: Place) -> float:
    """Loshchilov and Hutter, "SGDR", 2017: cosines, each so many times as long as the last."""
    length, times = max(round(numbers[0] * place.per_epoch), 1), int(numbers[1])
    done, step = 0, place.step
    while step - done >= length:
        done += length
        length *= times
    return (1 + math.cos(math.pi * (step - done) / length)) / 2


def _rise(numbers: tuple[float, ...], place: Place) -> float:
    """Of a learning-rate range test: steps in equal ratios from 1 / RATIO to 1."""
    left = place.total - 1 - place.step
    return float(numbers[0] ** (-left / max(place.total - 1, 1)))


KINDS = {
    "constant": Kind(form="constant", usual=(), factor=_constant),
    "cosine": Kind(form="cosine", usual=(), factor=_cosine, by_length=True),
    "step": Kind(form="step:EVERY[:FACTOR]", usual=(1.0, 0.1), needed=1, factor=_step),
    "multistep": Kind(
        form="multistep:EPOCH,EPOCH,...[:FACTOR]",
        usual=(0.1,),
        needed=1,
        factor=_multistep,
        epochs_listed=True,
    ),
    "polynomial": Kind(form="polynomial[:POWER]", usual=(1.0,), factor=_polynomial, by_length=True),
    "one-cycle": Kind(
        form="one-cycle[:RISE[:INITIAL[:FINAL]]]",
        usual=(0.3, 25.0, 1e4),
        factor=_one_cycle,
        by_length=True,
    ),
    "restarts": Kind(form="restarts:EPOCHS[:TIMES]", usual=(1.0, 1.0), needed=1, factor=_restarts),
    "rise": Kind(form="rise:RATIO", usual=(10.0,), needed=1, factor=_rise, by_length=True),
    "plateau": Kind(
        form="plateau[:PATIENCE[:FACTOR]]", usual=(5.0, 0.1), factor=_constant, by_length=True
    ),
}
"""Name to kind. Plateaus are found by evaluations (`sixfold.training.selection`)."""

_FORMS = [kind.form for kind in KINDS.values()]
FORMS = f"{', '.join(_FORMS[:-1])}, or {_FORMS[-1]}"


def parse_kind(text: str) -> tuple[str, tuple[float, ...]]:
    """Name and numbers of a schedule.

    Raises:
        UserError: if it is none.

    >>> parse_kind("multistep:30,60:0.2")
    ('multistep', (30.0, 60.0, 0.2))
    """
    name, *texts = text.split(":")
    kind = KINDS.get(name)
    values: list[float] = []
    if kind is not None:
        listed = texts[0].split(",") if kind.epochs_listed and texts else []
        try:
            values = [float(number) for number in (listed or texts[:1]) + texts[1:]]
        except ValueError:
            values = [-1.0]
        most = len(kind.usual) + kind.epochs_listed
        if kind.needed <= len(texts) <= most and min(values, default=1.0) > 0:
            given = len(texts) - kind.epochs_listed
            numbers = (*values, *kind.usual[max(given, 0) :])
            if not (problem := _range_problem(name, numbers)):
                return name, numbers
            raise UserError(f"--schedule {text!r}: {problem}")
    raise UserError(
        f"--schedule {text!r}: expected {FORMS} with positive numbers, such as step:30:0.1 (every "
        "30 epochs, a tenth)"
    )


def _range_problem(name: str, numbers: tuple[float, ...]) -> str:
    if not all(math.isfinite(number) for number in numbers):
        return "numbers must be finite"
    if name == "one-cycle" and not numbers[0] < 1:
        return "RISE, the part of the training in which the rate rises, must be below 1"
    if name == "restarts" and numbers[1] != int(numbers[1]):
        return "TIMES, by which each cycle is longer than the last, must be a whole number"
    if name == "plateau" and not (numbers[0] == int(numbers[0]) and numbers[1] < 1):
        return "PATIENCE must be a whole number of evaluations, and FACTOR below 1"
    return ""


def schedule_problems(config: OptimizerConfig) -> list[str]:
    """What is wrong with `--schedule` and `--warmup`, one line each."""
    try:
        name, _ = parse_kind(config.schedule)
    except UserError as error:
        return list(error.problems)
    if name == "one-cycle" and config.warmup:
        return ["--warmup: not with --schedule one-cycle, which begins with a rise of its own"]
    return []
