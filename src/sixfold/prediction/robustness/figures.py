"""How much accuracy is lost to a distortion: counts, intervals, and what a curve comes to.

Accuracies have Wilson's interval for a proportion. The difference to the clean images is paired,
since the images are the same: of n images b are lost and c gained, so the difference is (c - b) / n
with variance (b + c - (c - b)^2 / n) / n^2 (McNemar's setting).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.statistics import wilson

Z = 1.959964  # of a standard normal, 95% lies within so much of 0


def proportion(correct: int, images: int) -> dict[str, Any]:
    """An accuracy with its interval, as plain data."""
    low, high = wilson(correct, images)
    accuracy = correct / images if images else None
    return dict(images=images, correct=correct, accuracy=accuracy, low=low, high=high)  # noqa: C408


def variant_figures(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    clean: NDArray[np.int64],
    loss: float,
    classes: Sequence[str],
) -> dict[str, Any]:
    """What is told of one distortion at one strength.

    Classes, predictions on distorted and on clean images are (N,); `loss` is mean cross-entropy.
    """
    right, before = predicted == labels, clean == labels
    count = len(labels)
    lost, gained = int((before & ~right).sum()), int((~before & right).sum())
    gap = (gained - lost) / max(count, 1)
    variance = max(lost + gained - count * gap * gap, 0.0) / max(count, 1) ** 2
    half = Z * math.sqrt(variance)
    whole = np.bincount(labels, minlength=len(classes))
    own = np.bincount(labels[right], minlength=len(classes))
    given = np.bincount(predicted, minlength=len(classes))
    present = whole > 0
    return {
        **proportion(int(right.sum()), count),
        "balanced_accuracy": float(np.mean(own[present] / whole[present])),
        # A network that diverged has no loss that JSON could hold.
        "loss": loss if math.isfinite(loss) else None,
        "difference": {"mean": gap, "low": gap - half, "high": gap + half},
        "changed": float((predicted != clean).mean()),
        "per_class": [
            {"name": name, **proportion(int(own[k]), int(whole[k])), "predicted": int(given[k])}
            for k, name in enumerate(classes)
        ],
    }


def halfway(
    strengths: Sequence[float], accuracies: Sequence[float], *, clean: float, chance: float
) -> float | None:
    """The strength at which accuracy has fallen half the way from clean to chance.

    Interpolated between the rising strengths; None if it is not reached, or clean is no better than
    chance (that of the most frequent class). Below the first strength it is that strength, as an
    upper bound.

    >>> halfway([1.0, 2.0], [0.8, 0.4], clean=0.9, chance=0.1)
    1.75
    """
    level = (clean + chance) / 2
    if clean <= chance:
        return None
    before: tuple[float, float] | None = None
    for strength, accuracy in zip(strengths, accuracies, strict=True):
        if accuracy <= level:
            if before is None:
                return strength
            part = (before[1] - level) / (before[1] - accuracy)
            return before[0] + part * (strength - before[0])
        before = strength, accuracy
    return None
