"""What a network is to say of an image: its class, which of several labels, or numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES, BINARY, MULTI_LABEL, REGRESSION = "classes", "binary", "multi_label", "regression"

KINDS = {
    CLASSES: "one class of several",
    BINARY: "one class of two",
    MULTI_LABEL: "any number of labels",
    REGRESSION: "numbers",
}
"""Kinds of targets, in words. `binary` is `classes` of a network with a single output."""

AUTO = "auto"


def describe(kind: str) -> str:
    """A kind in words, for messages."""
    return f"{kind} targets ({KINDS[kind]} an image)"


def outputs_of(kind: str, names: int) -> int:
    """How many numbers a network gives for an image.

    Args:
        kind: of the targets.
        names: how many classes, labels or numbers have a name.
    """
    return 1 if kind == BINARY else names


STRATA = 10
"""Ranges of a number from each of which a part gets its share."""


def strata(
    labels: NDArray[np.int64], targets: NDArray[np.float64] | None, kind: str
) -> NDArray[np.int64]:
    """What a cut of the images keeps the shares of, (N,): their classes, or what stands for them.

    For a regression these are ten ranges of the first number with as many images in each; for
    labels the rarest one that an image has.

    >>> strata(np.zeros(4, np.int64), np.array([[3.0], [1.0], [2.0], [0.0]]), REGRESSION).tolist()
    [1, 0, 1, 0]
    """
    if targets is None or not len(targets):
        return labels
    if kind == REGRESSION:
        order = np.argsort(targets[:, 0], kind="stable")
        ranges = max(min(STRATA, len(order) // 2), 1)
        found = np.empty(len(order), np.int64)
        found[order] = np.arange(len(order)) * ranges // len(order)
        return found
    counts = targets.sum(0)
    rarity = np.where(targets > 0, counts, np.inf)
    rarest: NDArray[np.int64] = rarity.argmin(1).astype(np.int64)
    rarest[~(targets > 0).any(1)] = targets.shape[1]
    return rarest
