"""Setting a part of the images aside: stratified by class, never through the middle of a group.

The choice depends on the labels, the groups and a seed, and on nothing else: not on the seed of
the training, the number of workers or the machine.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sixfold.core.random_keys import key
from sixfold.data.targets import REGRESSION


def cut(
    labels: NDArray[np.int64],
    fraction: float,
    *,
    groups: NDArray[np.int64] | None = None,
    purpose: str,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Which records are set aside, (N,), by their class, (N,), and a fraction from 0 to 1.

    Every class gives the nearest whole number of images to `fraction` of its own, but at least
    one if it has two, and never its last one. With groups, (N,), each of which is set aside as a
    whole, the same is aimed at, as nearly as they allow. Cuts of another purpose or seed differ.

    >>> int(cut(np.repeat([0, 1], [10, 5]), 0.2, purpose="test").sum())
    3
    """
    if fraction == 0.0 or len(labels) == 0:
        return np.zeros(len(labels), np.bool_)
    if groups is None:
        return _cut_classes(labels, fraction, purpose, seed)
    return _cut_groups(labels, groups, fraction, purpose, seed)


def some(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many places in rising order, of each class its share, drawn from the labels alone."""
    order = shuffled(len(labels), "images")
    by_class = order[np.argsort(labels[order], kind="stable")]
    # Every N/count-th of the records sorted by class: each class gets its share, to within one.
    taken = ((np.arange(count) + 0.5) * len(labels) / max(count, 1)).astype(np.int64)
    return np.sort(by_class[taken])


def shuffled(count: int, *parts: int | str) -> NDArray[np.int64]:
    """A permutation of `count` things that follows from the key's parts alone."""
    # Raw draws of Philox are the same in every version of NumPy; its `permutation` may change.
    draws = np.random.Philox(key=key(*parts)).random_raw(count)
    return np.argsort(draws, kind="stable")


def _cut_classes(
    labels: NDArray[np.int64], fraction: float, purpose: str, seed: int
) -> NDArray[np.bool_]:
    aside = np.zeros(len(labels), np.bool_)
    by_class = np.argsort(labels, kind="stable")
    classes, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    for label, start, count in zip(classes, starts, counts, strict=True):
        take = _share(int(count), fraction)
        order = shuffled(int(count), seed, purpose, int(label))
        aside[by_class[start : start + count][order[:take]]] = True
    return aside


def _share(count: int, fraction: float) -> int:
    """How many of a class: rounded half up, at least one of two, never all."""
    if count < 2:
        return 0
    return min(max(int(count * fraction + 0.5), 1), count - 1)


def _cut_groups(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    fraction: float,
    purpose: str,
    seed: int,
) -> NDArray[np.bool_]:
    """Greedy: add the group that brings all classes nearest to their share, while one does.

    Nearness is the sum over classes of the squared relative error, so that a rare class counts as
    much as a frequent one.
    """
    names, member = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    table = np.zeros((len(names), len(classes)), np.int64)  # images of each class in each group
    np.add.at(table, (member, label), 1)
    totals = table.sum(0)
    goal = np.maximum(totals * fraction, 1e-9)

    order = shuffled(len(names), seed, purpose, "groups")  # which of two equally good groups
    table = table[order]
    taken = np.zeros(len(names), np.bool_)
    have = np.zeros(len(classes), np.int64)
    error = float(len(classes))
    while True:
        after = have + table
        errors = (((after - goal) / goal) ** 2).sum(1)
        # A class must keep an image to learn from.
        errors[taken | (after >= totals).any(1)] = np.inf
        missing = (have == 0) & (totals > 1)
        # A class that has nothing set aside yet goes before the overall balance.
        helps = table[:, missing].any(1) & np.isfinite(errors)
        if helps.any():
            errors[~helps] = np.inf
        best = int(np.argmin(errors))
        if not np.isfinite(errors[best]) or (errors[best] >= error and not helps.any()):
            break
        taken[best] = True
        have = after[best]
        error = float(errors[best])
    aside = np.zeros(len(names), np.bool_)
    aside[order] = taken
    return aside[member]


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Order of an epoch's n images: the same on every rank, machine and version of NumPy, (n,)."""
    return shuffled(n, seed, "order", epoch)


def file_windows(seed: int, epoch: int, files: int, together: int) -> list[NDArray[np.int64]]:
    """Which files an epoch visits at a time: drawn for the epoch, the same everywhere."""
    order = shuffled(files, seed, "files", epoch)
    return [order[start : start + together] for start in range(0, files, together)]


def by_windows(
    order: NDArray[np.int64], file: NDArray[np.int64], windows: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """An order of images in which those of each window of files come together.

    Args:
        order: of all images, (n,).
        file: number of the file of each image, (n,).
        windows: numbers of files.

    >>> by_windows(np.array([3, 0, 2, 1]), np.array([0, 0, 1, 1]), [np.array([1]), np.array([0])])
    array([3, 2, 0, 1])
    """
    window = np.empty(sum(map(len, windows)), np.int64)
    for number, files in enumerate(windows):
        window[files] = number
    return order[np.argsort(window[file[order]], kind="stable")]


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
