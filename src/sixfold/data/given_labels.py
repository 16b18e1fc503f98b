"""Labels that are handed over: numbers of classes that have names, or numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.data.targets import AUTO, CLASSES, MULTI_LABEL, REGRESSION

Label = int | str | tuple[float, ...]
"""A class, or numbers: those of a regression, or 0 and 1 of several labels."""


def kind_of(name: str, labels: Sequence[Label], asked: str) -> str:
    """Of the targets: as was asked for, or as the labels are."""
    first = labels[0] if labels else 0
    if asked in (MULTI_LABEL, REGRESSION):
        return asked
    if not isinstance(first, tuple):
        return CLASSES
    if asked != AUTO:
        raise UserError(
            f"{name}: labels are numbers such as {', '.join(f'{n:g}' for n in first[:5])}: give "
            "loss='mse', 'l1' or 'huber' for a regression, 'multi_label' for any number of labels "
            "an image; classes are whole numbers or names"
        )
    is_set = len(first) > 1 and {n for label in labels for n in np.atleast_1d(label)} <= {0.0, 1.0}
    return MULTI_LABEL if is_set else REGRESSION


def numbers_of(
    labels: Mapping[str, Sequence[Label]], names: tuple[str, ...] | None, kind: str
) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]]]:
    """Names of the numbers, or of the labels, and those of every image, (N, K)."""
    found, problems = {}, []
    width = len(np.atleast_1d(labels["train"][0])) if labels["train"] else 1
    for part, given in labels.items():
        try:
            rows = np.array(given, np.float64).reshape(len(given), width)
        except (TypeError, ValueError):
            problems.append(f"{part}: labels are not {width} number{'s' * (width > 1)} an image")
            continue
        if not np.isfinite(rows).all():
            problems.append(f"{part}: labels hold NaN or infinite numbers")
        elif kind == MULTI_LABEL and not np.isin(rows, (0, 1)).all():
            problems.append(f"{part}: labels hold other numbers than 0 and 1")
        found[part] = rows
    raise_problems(problems)
    if names is not None and len(names) == width:
        return names, found
    return ("target",) if width == 1 else tuple(f"target_{k}" for k in range(width)), found


def classified(
    name: str,
    labels: Mapping[str, Sequence[Label]],
    classes: Mapping[str, tuple[str, ...] | None],
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Names of the classes, and every image's number of its class.

    Args:
        name: of the data, for messages.
        labels: of each part.
        classes: names that each part gives the classes 0, 1, ..., if it does.
    """
    seen = {part: set(given) for part, given in labels.items()}
    known = classes["train"]
    if known is None:
        # Numbers in their order, then names in theirs.
        order = sorted(seen["train"], key=lambda label: (isinstance(label, str), label))
        place: dict[Label, int] = {label: number for number, label in enumerate(order)}
        known = tuple(str(label) for label in order)
    else:
        place = {number: number for number in range(len(known))}
        place |= {each: number for number, each in enumerate(known)}
    by_name: dict[Label, int] = {each: number for number, each in enumerate(known)}
    # Names such as 7, 8, 9: whole numbers of another part are these, not places among them.
    are_numbers = all(each.isdigit() for each in known) and classes["train"] is not None
    problems, numbers = [], {}
    if len(known) < 2:
        problems.append(
            f"{name}: its labels have {len(known)} class{'' if len(known) == 1 else 'es'}: "
            "expected at least two"
        )
    for part, given in labels.items():
        own = classes[part]
        table = place
        if part != "train" and own is not None:
            table = dict(by_name)
            table |= {n: by_name[each] for n, each in enumerate(own) if each in by_name}
        elif part != "train" and are_numbers:
            table = by_name
        lost = [label for label in seen[part] if label not in table and str(label) not in by_name]
        if lost:
            shown = ", ".join(map(str, sorted(lost, key=str)[:5]))
            problems.append(f"{part}: labels that the training images have not: {shown}")
            continue
        numbers[part] = np.array(
            [table.get(label, by_name.get(str(label), -1)) for label in given], np.int64
        )
    raise_problems(problems)
    return known, numbers
