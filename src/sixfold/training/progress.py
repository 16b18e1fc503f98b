"""How far a run has come, as its checkpoints keep it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come."""

    step: int = 0  # steps done
    best_step: int = -1  # of the best evaluation on the validation part, -1 if there is none
    best_accuracy: float = -1.0  # its accuracy, or what else is selected by, the larger the better
    images: int = 0  # training images seen
    rate_factor: float = 1.0  # of the learning rate, as a callback has set it
    plateau_factor: float = 1.0  # of the learning rate, after plateaus
    plateau_best: float | None = None  # what the next evaluations are compared with
    plateau_bad: int = 0  # evaluations since that were no better
    stopping_best: float | None = None  # the same of early stopping
    without_better: int = 0
    canary: str = ""  # of the rank that has written this: what it computes, as a hash
    stopped: str = ""  # why no step is made after this one

    def is_better(self, quality: float) -> bool:
        """Whether an evaluation on the validation part beats all before."""
        return self.best_step < 0 or quality > self.best_accuracy
