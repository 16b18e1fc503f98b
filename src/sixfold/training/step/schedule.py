"""Which samples a step takes and how large its update is: pure functions of the step number."""

import math
from dataclasses import dataclass

from sixfold.training.config import OptimizerConfig, TrainingConfig
from sixfold.training.step.schedule_kinds import KINDS, Place, parse_kind


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

    def crosses(self, before: int, done: int, every_epochs: float) -> bool:
        """True if a multiple of so many epochs was reached after step `before`, by step `done`."""
        if every_epochs <= 0:
            return False
        steps = every_epochs * self.steps_per_epoch
        return int(done / steps + 1e-9) > int(before / steps + 1e-9)


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
        kind: name of the kind, in `KINDS`.
        numbers: what stands behind it.
        peak: rate after the warm-up.
        warmup: epochs of linear warm-up.
    """

    kind: str
    numbers: tuple[float, ...]
    peak: float
    warmup: float

    def rate(self, step: int, budget: TrainingLength) -> float:
        """Learning rate of a step, from 0.

        Warm-up of w steps: peak (t + 1) / w; what follows is a schedule over the steps after it.
        """
        warm_steps = round(self.warmup * budget.steps_per_epoch)
        if step < warm_steps:
            return self.peak * (step + 1) / warm_steps
        place = Place(
            step=step - warm_steps,
            total=budget.total_steps - warm_steps,
            per_epoch=budget.steps_per_epoch,
            warm=warm_steps,
        )
        return self.peak * KINDS[self.kind].factor(self.numbers, place)


def parse_schedule(config: OptimizerConfig) -> Schedule:
    """Read `--schedule`.

    Raises:
        UserError: if it is none of `KINDS`.

    >>> parse_schedule(OptimizerConfig(schedule="step:30")).numbers
    (30.0, 0.1)
    """
    kind, numbers = parse_kind(config.schedule)
    return Schedule(kind=kind, numbers=numbers, peak=config.lr, warmup=config.warmup)
