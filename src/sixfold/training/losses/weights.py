"""How much each sample counts: its own weight times that of its class."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError, raise_problems
from sixfold.training.losses.config import BALANCED


def read_class_weights(text: str) -> dict[str, float]:
    """Weights by class from ``NAME=W,...``; a `UserError` with everything that is not of this form.

    >>> read_class_weights("cat=2,dog=0.5")
    {'cat': 2.0, 'dog': 0.5}
    """
    found: dict[str, float] = {}
    problems = []
    for item in text.split(","):
        name, equals, value = item.rpartition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if not equals or not (0 <= weight < math.inf):
            problems.append(
                f"--class-weights {text}: {item!r}: expected {BALANCED}, or NAME=W,... with "
                "weights of at least 0"
            )
        elif name.strip() in found:
            problems.append(f"--class-weights {text}: {name.strip()} stands there twice")
        else:
            found[name.strip()] = weight
    raise_problems(problems)
    return found


def class_weights(
    text: str, classes: Sequence[str], balanced: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weight of every class, (K,); a `UserError` if a name is no class's.

    `balanced` (K,) is what the word stands for.
    """
    if text == BALANCED:
        return balanced
    given = read_class_weights(text)
    strange = [name for name in given if name not in classes]
    if strange:
        raise UserError(
            [f"--class-weights {text}: " + unknown("class", name, classes) for name in strange]
        )
    return np.array([given.get(name, 1.0) for name in classes])


def balanced_classes(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """N / (K n_k) for each of the K classes that have samples, as scikit-learn's; else 1.

    >>> balanced_classes(np.array([0, 0, 0, 1]), 3).round(3).tolist()
    [0.667, 2.0, 1.0]
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    known = int((counts > 0).sum())
    return np.where(counts > 0, len(labels) / np.maximum(known * counts, 1), 1.0)


def balanced_labels(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples without each label over samples with it, (K,); 1 where none or all have it.

    >>> balanced_labels(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])).tolist()
    [2.0, 1.0]
    """
    having = targets.sum(0)
    lacking = len(targets) - having
    both = (having > 0) & (lacking > 0)
    return np.where(both, lacking / np.maximum(having, 1), 1.0)
