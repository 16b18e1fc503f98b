"""Blood cells cut out of annotated microscope images: one record for each box.

The annotations are in Pascal VOC's form (M. Everingham et al., "The Pascal visual object classes
challenge", 2010): an XML file for each image, with a named box for each object. Crops are grey and
resized to 256x256 unless told otherwise. The image is the file that <filename> and <folder> name;
where there is none, that of the annotation's own name. Two that are equally good are refused.

Parts are made by microscope image, never by crop: two crops of one image share its light, stain
and focus, so a network would be tested on what it has seen. If the set brings its own list of test
images (``ImageSets/Main/test.txt``), that is the test part and all else the training part;
otherwise images are cut 80 to 20, with the shares of the classes kept as nearly as possible.

Boxes without any area (the usual set has two) mark nothing; they are left out, and listed, as are
images without an annotation and annotations without a box.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.data import paths
from sixfold.data.file_tree import Tree, unused
from sixfold.data.formats.folder import TEST_FRACTION, describe, empty_classes, sort_classes
from sixfold.data.images import Box
from sixfold.data.manifest import shortened
from sixfold.data.records import FileRecords, Listing
from sixfold.data.splits import cut

DEFAULT_SIZE = 256
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MASKS = re.compile(r"(^|/)(annotations|[^/]*(segmentation|mask|trimap|label)[^/]*)/", re.IGNORECASE)
"""Folders whose pictures are annotations too: taken only where an annotation names them exactly."""

TEST_LIST = "ImageSets/Main/test.txt"
MOST_XML_BYTES = 2**22


class _Cell(NamedTuple):
    """A box, with the name of its record and of its class."""

    record: str
    name: str
    box: Box


@dataclass(frozen=True)
class _Image:
    """An annotated image: its annotation's file and its own, and its boxes."""

    annotation: str
    file: str
    cells: tuple[_Cell, ...]

    @property
    def group(self) -> str:
        """What cannot be cut into two parts."""
        return f"{_stem(self.annotation)}\0{self.file}"


def read(tree: Tree, name: str) -> Listing:
    """List the boxes of all annotated images."""
    home = _home(tree)
    images = _annotated_images(home)
    if not images:
        raise UserError(
            f"{home.path}: Annotations holds no *.xml as in Pascal VOC ({describe(home)}); COCO's "
            "JSON and YOLO's text are not read: convert them"
        )
    marked = [(image, cell) for image in images for cell in image.cells]
    cells = [(image, cell) for image, cell in marked if not _is_empty(cell.box)]
    classes = sort_classes({cell.name for _, cell in cells})
    if len(classes) < 2:
        raise UserError(
            f"{home.path}: annotated with {', '.join(classes) or 'no class at all'}: expected "
            "boxes of at least two classes"
        )
    number = {class_name: index for index, class_name in enumerate(classes)}
    labels = np.array([number[cell.name] for _, cell in cells], np.int64)
    records = FileRecords(
        names=[cell.record for _, cell in cells],
        labels=labels,
        extents=[home.files[image.file] for image, _ in cells],
        groups=[image.file for image, _ in cells],
        boxes=[cell.box for _, cell in cells],
    )
    test, split = _test_part(home, [image for image, _ in cells], labels)
    parts = {
        "train": records.take(np.flatnonzero(~test)),
        "test": records.take(np.flatnonzero(test)),
    }
    problems = [
        line
        for part, taken in parts.items()
        for line in empty_classes(home.path, part, taken.labels, classes, classes)
    ]
    raise_problems(problems)
    left_out = [
        (cell.record, f"box {cell.box[0]},{cell.box[1]} to {cell.box[2]},{cell.box[3]} is empty")
        for _, cell in marked
        if _is_empty(cell.box)
    ]
    left_out += [(image.file, "annotated without a box") for image in images if not image.cells]
    pictures = {n: e for n, e in tree.files.items() if n.lower().endswith(IMAGE_SUFFIXES)}
    used = [image.file for image in images]
    reason = "a picture without an annotation in the set that is read"
    told = (*left_out, *unused(replace(tree, files=pictures), home, used, reason))
    return Listing(name=name, classes=tuple(classes), parts=parts, split=split, left_out=told)


def _is_empty(box: Box) -> bool:
    return box[0] >= box[2] or box[1] >= box[3]


def _home(tree: Tree) -> Tree:
    found = tree.outermost(
        name.rpartition("/")[0]
        for name in tree.folders
        if paths.base_name(name).lower() == "annotations"
    )
    if found is None:
        raise UserError(
            f"{tree.path}: expected Annotations/*.xml and JPEGImages/* as in Pascal VOC "
            f"({describe(tree)})"
        )
    return found


def _annotated_images(tree: Tree) -> list[_Image]:
    files: dict[str, list[str]] = defaultdict(list)
    for name in tree.files:
        if name.lower().endswith(IMAGE_SUFFIXES):
            files[_stem(name).lower()].append(name)
    images: list[_Image] = []
    problems: list[str] = []
    for name in tree.files:
        if not name.lower().startswith("annotations/") or not name.lower().endswith(".xml"):
            continue
        try:
            images.append(_read_annotation(tree, name, files))
        except UserError as error:
            problems += error.problems
    first: dict[str, str] = {}
    for image in images:
        if (other := first.setdefault(image.file, image.annotation)) != image.annotation:
            problems.append(
                f"{paths.join(tree.path, image.annotation)}: names {image.file}, as {other} does: "
                "correct <filename>, or remove one of the two"
            )
    if problems:
        raise UserError(shortened(problems))
    return images


def _stem(name: str) -> str:
    return paths.base_name(name).rpartition(".")[0]


def _find_image(annotation: str, root: Element, files: Mapping[str, Sequence[str]]) -> str:
    said = (root.findtext("filename") or "").strip().replace("\\", "/")
    folder = (root.findtext("folder") or "").strip().replace("\\", "/").strip("/")
    base, own = paths.base_name(said), _stem(annotation)
    named = [*files.get(_stem(said).lower(), ()), *files.get(base.lower(), ())]
    found = (
        [name for name in named if paths.base_name(name) == base]
        or [name for name in named if paths.base_name(name).lower() == base.lower()]
        or [name for name in named if not MASKS.search(name)]  # in another format
        or [name for name in files.get(own.lower(), ()) if not MASKS.search(name)]
    )
    within = annotation.partition("/")[2].rpartition("/")[0]  # Annotations/ward1/a.xml
    for wanted in (said.rpartition("/")[0], folder, within, "JPEGImages", "images"):
        end = f"/{wanted}/".lower()
        if wanted and len(found) > 1:
            found = [n for n in found if f"/{n.rpartition('/')[0]}/".lower().endswith(end)] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"there are {len(found)} images for it ({', '.join(found[:2])}): tell which by "
            "<filename> and <folder>"
        )
    raise UserError(f"there is no image {own}.jpg for this annotation")


def _read_annotation(tree: Tree, name: str, files: Mapping[str, Sequence[str]]) -> _Image:
    path = paths.join(tree.path, name)
    try:
        root = ElementTree.fromstring(tree.read(name, MOST_XML_BYTES))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not well-formed XML: {error}") from None
    try:
        file = _find_image(name, root, files)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
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
        cells.append(_Cell(f"{file}[{place}]", label, box))
    return _Image(name, file, tuple(cells))


_EDGES = ("xmin", "ymin", "xmax", "ymax")


def _listed(line: str) -> str:
    """The name of an image in a list: `2007_000027`, `2007_000027 -1` or `2007_000027.jpg`."""
    name = paths.base_name(line.split()[0].replace("\\", "/"))
    return _stem(name) if name.lower().endswith((*IMAGE_SUFFIXES, ".xml")) else name


def _test_part(
    tree: Tree, images: Sequence[_Image], labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], str]:
    """Which records are for testing, and by what rule."""
    if TEST_LIST in tree.files:
        text = tree.read(TEST_LIST).decode("utf-8", "replace")
        listed = {_listed(line) for line in text.splitlines() if line.strip()}
        test = np.array([_stem(image.annotation) in listed for image in images])
        if listed and not test.any():
            raise UserError(
                f"{paths.join(tree.path, TEST_LIST)}: names none of the annotated images "
                f"({', '.join(sorted(listed)[:3])}): correct or remove it"
            )
        if 0 < test.sum() < len(test):
            return test, f"by microscope image, as listed in {TEST_LIST}"
    group = np.unique(np.array([image.group for image in images]), return_inverse=True)[1]
    test = cut(labels, TEST_FRACTION, groups=group, purpose="test")
    return test, "80/20 by microscope image, stratified by class"
