"""A folder of images: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sixfold.data import paths
from sixfold.data.records import FileRecords, Listing
from sixfold.data.splits import cut
from sixfold.data.trees import Tree
from sixfold.errors import UserError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation")
"""Taken for the test part only where there is none: models are selected on `--validation`."""

TEST_FRACTION = 0.2
LAYOUT = (
    "expected train/<class>/* with test/<class>/*, or <class>/* (pictures without labels, to be "
    "predicted only, are images:PATH)"
)


def read(tree: Tree, name: str, *, classes: Sequence[str] | None = None) -> Listing:
    """List the images of a folder.

    Every file below a class's folder is an image, whatever its name; hidden files are none.
    Classes are in the order of their names, or of their numbers if all of them are numbers.

    Args:
        tree: the folder or archive; a single folder around everything is looked through.
        name: of the data set.
        classes: the classes there must be; else whatever is found.

    Raises:
        UserError: with every class that has no images, or whose name is unexpected.
    """
    tree = enter(tree)
    prefixes, split = _parts(tree)
    folders = {part: _class_folders(tree, prefix) for part, prefix in prefixes.items()}
    found = sort_classes({name for names in folders.values() for name in names})
    problems = []
    if classes is not None and (unknown := [name for name in found if name not in classes]):
        problems.append(
            f"{tree.path}: classes {', '.join(unknown[:10])} are none of {name}'s "
            f"({', '.join(classes)}): for a set of your own use folder:{tree.path}"
        )
    order = tuple(classes if classes is not None else found)
    if len(order) < 2:
        seen = f"one class, {order[0]!r}" if order else "no folders of classes"
        raise UserError(f"{tree.path}: {seen}: {LAYOUT}, with at least two classes")
    parts = {part: _records(tree, prefix, order) for part, prefix in prefixes.items()}
    problems += _empty_classes(tree, order, parts, folders)
    if problems:
        raise UserError(problems)
    if "test" not in parts:
        parts = split_records(parts["train"])
    return Listing(name=name, classes=order, parts=parts, split=split)


def enter(tree: Tree) -> Tree:
    """The tree inside folders that hold nothing but one other folder."""
    top = tree.top()
    while len(top) == 1 and top[0].lower() not in TRAIN_NAMES:
        inner = tree.below(top[0])
        if not inner.top():
            return tree
        tree, top = inner, inner.top()
    return tree


def _parts(tree: Tree) -> tuple[dict[str, str], str]:
    """Folder of each part, and how the parts are told apart."""
    top = {name.lower(): name for name in reversed(tree.top())}
    train = next((top[name] for name in TRAIN_NAMES if name in top), None)
    if train is None:
        return {"train": ""}, "80/20, stratified by class"
    for candidate in (*TEST_NAMES, *VALIDATION_NAMES):
        if candidate in top:
            return {"train": train, "test": top[candidate]}, f"folders {train}, {top[candidate]}"
    return {"train": train}, f"80/20 of folder {train}, stratified by class"


def _class_folders(tree: Tree, prefix: str) -> list[str]:
    return tree.below(prefix).top()


def sort_classes(names: set[str]) -> list[str]:
    """By name; by number if all of them are numbers.

    >>> sort_classes({"10", "9", "1"}), sort_classes({"b", "a", "10"})
    (['1', '9', '10'], ['10', 'a', 'b'])
    """
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _records(tree: Tree, prefix: str, classes: Sequence[str]) -> FileRecords:
    number = {name: index for index, name in enumerate(classes)}
    start = f"{prefix}/" if prefix else ""
    found = []
    for name in tree.files:
        inside = name[len(start) :]
        if name.startswith(start) and "/" in inside:
            label = number.get(inside.split("/")[0])
            if label is not None:
                found.append((label, name))
    found.sort()
    return FileRecords(
        names=[name for _, name in found],
        labels=np.array([label for label, _ in found], np.int64),
        extents=[tree.files[name] for _, name in found],
    )


def _empty_classes(
    tree: Tree,
    classes: Sequence[str],
    parts: Mapping[str, FileRecords],
    folders: Mapping[str, Sequence[str]],
) -> list[str]:
    """One problem for each part with classes that have no images.

    The training part needs all classes; of the test part only folders that are there but empty
    are a mistake for certain.
    """
    problems = []
    for part, records in parts.items():
        counts = np.bincount(records.labels, minlength=len(classes))
        empty = [
            name
            for name, count in zip(classes, counts, strict=True)
            if not count and (part == "train" or name in folders[part])
        ]
        if empty:
            problems.append(empty_classes_problem(tree.path, part, empty))
    return problems


def empty_classes_problem(path: str, part: str, empty: Sequence[str]) -> str:
    """One line on classes without images."""
    more = f" and {len(empty) - 20} more" if len(empty) > 20 else ""
    return (
        f"{path}: classes with no images in the {part} part: {', '.join(empty[:20])}{more}: add "
        "images, or remove the classes"
    )


def split_records(records: FileRecords) -> dict[str, FileRecords]:
    """Cut a test part off records that have none: 80 to 20, by class."""
    test = cut(records.labels, TEST_FRACTION, purpose="test")
    return {
        "train": records.take(np.flatnonzero(~test)),
        "test": records.take(np.flatnonzero(test)),
    }


def describe(tree: Tree) -> str:
    """What a folder or archive holds, briefly, for messages."""
    names = [*tree.top(), *sorted(name for name in tree.files if "/" not in name)]
    shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
    return f"{paths.base_name(tree.path)} holds {shown or 'nothing'}"
