"""Which samples a step takes and how large its update is: pure functions of the step number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class TrainingLength:
    """How many steps a run has, and how they fall into epochs.

    Attributes:
        images: training images, an epoch.
        batch_size: images per step; the last step of an epoch takes what is left.
        total_steps: steps of the whole run.
    """

    images: int
    batch_size: int
    total_steps: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the images, the last of which may be smaller."""
        return -(-self.images // self.batch_size)

    def place(self, step: int) -> tuple[int, int, int]:
        """Epoch of a step (both from 0), and its first and one-past-last place in that epoch."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        start = batch * self.batch_size
        return epoch, start, min(start + self.batch_size, self.images)

    def epochs_done(self, steps: int) -> float:
        """Epochs after so many steps, with the exact fraction of images seen."""
        epoch, batch = divmod(steps, self.steps_per_epoch)
        return epoch + batch * self.batch_size / self.images


DEFAULT_EPOCHS = 10.0


def budget(config: TrainingConfig, images: int) -> TrainingLength:
    """The steps that `--epochs` or `--steps` ask for.

    >>> budget(TrainingConfig(batch_size=64, epochs=1.5), 100).total_steps
    3
    """
    per_epoch = -(-images // config.batch_size)
    epochs = config.epochs if config.epochs is not None else DEFAULT_EPOCHS
    total = config.steps if config.steps is not None else math.ceil(epochs * per_epoch)
    return TrainingLength(images=images, batch_size=config.batch_size, total_steps=total)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate as a function of the step.

    Attributes:
        kind: "constant", "cosine" or "step".
        every: epochs between drops, for "step".
        factor: what a drop multiplies by, for "step".
        peak: rate after the warm-up.
        warmup: epochs of linear warm-up.
    """

    kind: str
    every: float
    factor: float
    peak: float
    warmup: float

    def rate(self, step: int, budget: TrainingLength) -> float:
        """Learning rate of a step, from 0.

        Warm-up of w steps: peak (t + 1) / w. Cosine (Loshchilov and Hutter, "SGDR", 2017, without
        restarts) over the steps after the warm-up: peak (1 + cos(pi t / T)) / 2.
        """
        warm_steps = round(self.warmup * budget.steps_per_epoch)
        if step < warm_steps:
            return self.peak * (step + 1) / warm_steps
        if self.kind == "cosine":
            span = max(budget.total_steps - warm_steps, 1)
            return self.peak * (1 + math.cos(math.pi * (step - warm_steps) / span)) / 2
        if self.kind == "step":
            # The small term undoes the rounding of fractions such as 0.3 / 0.1.
            drops = int(step / (budget.steps_per_epoch * self.every) + 1e-9)
            return self.peak * self.factor**drops
        return self.peak


def parse_schedule(config: OptimizerConfig) -> Schedule:
    """Read `--schedule`.

    Raises:
        UserError: if it is none of constant, cosine, step:EVERY and step:EVERY:FACTOR.

    >>> parse_schedule(OptimizerConfig(schedule="step:30")).factor
    0.1
    """
    kind, *numbers = config.schedule.split(":")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = [-1.0]
    expected = {"constant": (0, 0), "cosine": (0, 0), "step": (1, 2)}.get(kind)
    if (
        expected is None
        or not expected[0] <= len(values) <= expected[1]
        or min(values, default=1.0) <= 0
    ):
        raise UserError(
            f"--schedule {config.schedule!r}: expected constant, cosine, or step:EVERY[:FACTOR] "
            "with positive numbers, such as step:30:0.1 (every 30 epochs, a tenth)"
        )
    every, factor = [*values, 0.1][:2] if values else (1.0, 1.0)
    return Schedule(kind=kind, every=every, factor=factor, peak=config.lr, warmup=config.warmup)
