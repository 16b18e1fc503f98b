"""A folder of images: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` alone.

How the parts are told from classes is in `layout`.
"""

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.data import paths
from sixfold.data.archives import is_archive_name, unpack_hint
from sixfold.data.dataset import UNLABELLED
from sixfold.data.file_tree import Tree, unused
from sixfold.data.formats.layout import ROLES, enter, find_parts, nesting_problems
from sixfold.data.manifest import PARTS
from sixfold.data.records import FileRecords, Listing
from sixfold.data.splits import cut

TEST_NAMES, VALIDATION_NAMES = ROLES["test"], ROLES["validation"]
TEST_FRACTION = 0.2
LAYOUT = (
    "expected train/<class>/* with test/<class>/*, or <class>/* (pictures without labels, to be "
    "predicted only, are images:PATH)"
)


def read(tree: Tree, name: str, *, classes: Sequence[str] | None = None) -> Listing:
    """List the images of a folder, or of the single folder within it.

    Every file below a class's folder is an image, whatever its name; hidden files are none. What
    is in no class of a part that is used is told in `left_out`. Classes are in the order of their
    names, or of their numbers if all of them are numbers; those that must be there can be given.
    """
    whole, tree = tree, enter(tree)
    layout = find_parts(tree)
    folders = {part: tree.below(prefix).top() for part, prefix in layout.prefixes.items()}
    found = sort_classes({name for names in folders.values() for name in names})
    problems = []
    if classes is not None and (unknown := [name for name in found if name not in classes]):
        problems.append(
            f"{tree.path}: classes {', '.join(unknown[:10])} are none of {name}'s "
            f"({', '.join(classes)}): for a set of your own use folder:{tree.path}"
        )
    order = tuple(classes if classes is not None else found)
    if len(order) < 2:
        seen = f"one class, {order[0]!r}" if order else f"no folders of classes ({describe(tree)})"
        raise UserError(f"{tree.path}: {seen}: {LAYOUT}, with at least two classes")
    problems += nesting_problems(tree, layout.prefixes["train"])
    raise_problems(problems)
    parts = {part: _records(tree, prefix, order) for part, prefix in layout.prefixes.items()}
    for part, records in parts.items():
        # Of the test part only folders that are there but empty are a mistake for certain.
        among = order if part == "train" else folders[part]
        problems += empty_classes(tree.path, part, records.labels, order, among)
    raise_problems(problems)
    used = [name for records in parts.values() for name in records.names]
    left_out = unused(whole, tree, used, "in no folder of a class of the parts that are used")
    if "test" in parts:
        left_out += _shared(tree, parts, layout.prefixes["test"])
    elif layout.unlabelled:
        parts["test"] = parts["train"].take(np.empty(0, np.int64))
    else:
        parts = split_records(parts["train"])
    return Listing(name=name, classes=order, parts=parts, split=layout.split, left_out=left_out)


def _shared(tree: Tree, parts: Mapping[str, FileRecords], test: str) -> tuple[tuple[str, str], ...]:
    """A line on test files that are training files too, by a link."""
    train, tested = ({tree.twins.get(n, n) for n in parts[part].names} for part in PARTS)
    if not (both := len(train & tested)):
        return ()
    reason = f"used, but {both} of these test files are training files too: no test of anything new"
    return ((f"{test}/", reason),)


def sort_classes(names: set[str]) -> list[str]:
    """By name; by number if all of them are numbers."""
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


def empty_classes(
    path: str, part: str, labels: NDArray[np.int64], classes: Sequence[str], among: Sequence[str]
) -> list[str]:
    """A line on the classes without images, if there are any, of those among which none may be."""
    counts = np.bincount(labels, minlength=len(classes))
    empty = [
        name for name, count in zip(classes, counts, strict=True) if not count and name in among
    ]
    more = f" and {len(empty) - 20} more" if len(empty) > 20 else ""
    alike = _alike(empty, classes)
    line = f"{path}: classes with no images in the {part} part: {', '.join(empty[:20])}{more}: " + (
        f"{alike}: give them one name" if alike else "add images, or remove the classes"
    )
    return [line] if empty else []


def _alike(empty: Sequence[str], classes: Sequence[str]) -> str:
    """Two names that people read as one, if a class without images has such a neighbour."""

    def read(name: str) -> str:
        return unicodedata.normalize("NFKC", name).casefold().strip()

    for name in empty:
        other = next((c for c in classes if c != name and read(c) == read(name)), None)
        if other is not None:
            return f"{name!a} and {other!a} differ only in capitals, accents or spaces"
    return ""


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
    packed = any(map(is_archive_name, names))
    hint = "; unpack what is packed in it" if packed else unpack_hint(names)
    return f"{paths.base_name(tree.path)} holds {shown or 'nothing'}{hint}"


def read_unlabelled(tree: Tree, name: str) -> Listing:
    """List the pictures of a folder, by name; hidden files are none.

    They all are the test part: there is nothing to learn from.
    """
    files = sorted(tree.files)
    if not files:
        raise UserError(f"{tree.path}: holds no files: expected pictures")
    everything = FileRecords(
        names=files,
        labels=np.zeros(len(files), np.int64),
        extents=[tree.files[file] for file in files],
    )
    nothing = everything.take(np.empty(0, np.int64))
    return Listing(
        name=name,
        classes=(UNLABELLED,),
        parts={"train": nothing, "test": everything},
        split="all pictures",
        left_out=tree.left_out,
    )
