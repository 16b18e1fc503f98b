"""Blood cells cut out of annotated microscope images: one record for each box.

The annotations are in Pascal VOC's form (M. Everingham et al., "The Pascal visual object classes
challenge", 2010): an XML file for each image, with a named box for each object. Crops are grey and
resized to 256x256 unless told otherwise.

Parts are made by microscope image, never by crop: two crops of one image share its light, stain
and focus, so a network would be tested on what it has seen. If the set brings its own list of test
images (``ImageSets/Main/test.txt``), that is the test part and all else the training part;
otherwise images are cut 80 to 20, with the shares of the classes kept as nearly as possible.

Boxes without any area (the usual set has two) mark nothing; they are left out, and listed.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sixfold.data import paths
from sixfold.data.formats.folder import (
    TEST_FRACTION,
    describe,
    empty_classes_problem,
    sort_classes,
)
from sixfold.data.images import Box
from sixfold.data.records import FileRecords, Listing
from sixfold.data.splits import cut
from sixfold.data.trees import Tree
from sixfold.errors import UserError

DEFAULT_SIZE = 256
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
TEST_LIST = "ImageSets/Main/test.txt"
MOST_XML_BYTES = 2**22


class _Cell(NamedTuple):
    """A box of an image (by its stem), with the name of its record and of its class."""

    stem: str
    record: str
    name: str
    box: Box


@dataclass(frozen=True)
class _Image:
    """A microscope image: its file's name in the tree, and its boxes."""

    file: str
    cells: tuple[_Cell, ...]


def read(tree: Tree, name: str) -> Listing:
    """List the boxes of all annotated images.

    Raises:
        UserError: with every annotation that cannot be read or has no image.
    """
    home = _home(tree)
    images = _annotated_images(home)
    marked = [cell for image in images for cell in image.cells]
    cells = [cell for cell in marked if not _is_empty(cell.box)]
    classes = sort_classes({cell.name for cell in cells})
    if len(classes) < 2:
        raise UserError(
            f"{home.path}: annotated with {', '.join(classes) or 'no class at all'}: expected "
            "boxes of at least two classes"
        )
    number = {class_name: index for index, class_name in enumerate(classes)}
    labels = np.array([number[cell.name] for cell in cells], np.int64)
    files = {cell.stem: image.file for image in images for cell in image.cells}
    records = FileRecords(
        names=[cell.record for cell in cells],
        labels=labels,
        extents=[home.files[files[cell.stem]] for cell in cells],
        groups=[files[cell.stem] for cell in cells],
        boxes=[cell.box for cell in cells],
    )
    test, split = _test_part(home, [cell.stem for cell in cells], labels)
    parts = {
        "train": records.take(np.flatnonzero(~test)),
        "test": records.take(np.flatnonzero(test)),
    }
    problems = [
        empty_classes_problem(home.path, part, [classes[label] for label in missing])
        for part, taken in parts.items()
        if len(missing := np.flatnonzero(np.bincount(taken.labels, minlength=len(classes)) == 0))
    ]
    if problems:
        raise UserError(problems)
    left_out = tuple(
        (cell.record, f"box {cell.box[0]},{cell.box[1]} to {cell.box[2]},{cell.box[3]} is empty")
        for cell in marked
        if _is_empty(cell.box)
    )
    return Listing(name=name, classes=tuple(classes), parts=parts, split=split, left_out=left_out)


def _is_empty(box: Box) -> bool:
    return box[0] >= box[2] or box[1] >= box[3]


def _home(tree: Tree) -> Tree:
    """The folder that holds ``Annotations``."""
    homes = [
        name.rpartition("/")[0]
        for name in tree.folders
        if paths.base_name(name).lower() == "annotations"
    ]
    if not homes:
        raise UserError(
            f"{tree.path}: expected Annotations/*.xml and JPEGImages/* as in Pascal VOC "
            f"({describe(tree)})"
        )
    return tree.below(min(homes, key=lambda home: (home.count("/"), home)))


def _annotated_images(tree: Tree) -> list[_Image]:
    files: dict[str, str] = {}
    for name in tree.files:
        if name.lower().endswith(IMAGE_SUFFIXES):
            files.setdefault(_stem(name), name)
    images: list[_Image] = []
    problems: list[str] = []
    for name in tree.files:
        if not name.lower().startswith("annotations/") or not name.lower().endswith(".xml"):
            continue
        try:
            images.append(_read_annotation(tree, name, files))
        except UserError as error:
            problems += error.problems
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise UserError(problems[:10] + more)
    return images


def _stem(name: str) -> str:
    return paths.base_name(name).rpartition(".")[0]


def _read_annotation(tree: Tree, name: str, files: dict[str, str]) -> _Image:
    path = paths.join(tree.path, name)
    data = tree.read(name)
    if len(data) > MOST_XML_BYTES:
        raise UserError(f"{path}: {len(data)} bytes are no annotation")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not well-formed XML: {error}") from None
    # Paired by the annotation's own name: the name inside is stale in some sets.
    stem = _stem(name)
    file = files.get(stem) or files.get(_stem(root.findtext("filename") or ""))
    if file is None:
        raise UserError(f"{path}: there is no image {stem}.jpg for this annotation")
    cells = []
    for place, item in enumerate(root.iter("object")):
        try:
            edges = [float(item.findtext(f"bndbox/{edge}") or "") for edge in _EDGES]
            box = (round(edges[0]), round(edges[1]), round(edges[2]), round(edges[3]))
        except (ValueError, OverflowError):
            raise UserError(f"{path}: object {place} has no complete bndbox") from None
        label = (item.findtext("name") or "").strip()
        if not label:
            raise UserError(f"{path}: object {place} has no name")
        cells.append(_Cell(stem, f"{file}[{place}]", label, box))
    return _Image(file, tuple(cells))


_EDGES = ("xmin", "ymin", "xmax", "ymax")


def _test_part(
    tree: Tree, stems: Sequence[str], labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], str]:
    """Which records are for testing, and by what rule."""
    if TEST_LIST in tree.files:
        text = tree.read(TEST_LIST).decode("utf-8", "replace")
        listed = {line.split()[0] for line in text.splitlines() if line.strip()}
        test = np.array([stem in listed for stem in stems])
        if 0 < test.sum() < len(test):
            return test, f"by microscope image, as listed in {TEST_LIST}"
    group = np.unique(np.array(stems), return_inverse=True)[1]
    test = cut(labels, TEST_FRACTION, groups=group, purpose="test")
    return test, "80/20 by microscope image, stratified by class"
