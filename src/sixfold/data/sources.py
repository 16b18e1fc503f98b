"""From a specification to a listing: where the data is, and which format reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.data import digits, paths, synthetic
from sixfold.data.archives import is_archive_name
from sixfold.data.file_tree import fingerprint, open_tree
from sixfold.data.formats import cells, cifar10, folder, mnist, parquet, unlabelled
from sixfold.data.formats.shards import list_shards
from sixfold.data.records import Listing, list_stores
from sixfold.data.spec import Spec, TableOptions


@dataclass(frozen=True)
class _Habitat:
    """How to find a set in a folder that may hold other things."""

    files: re.Pattern[str]  # names that show that a folder is the set
    folders: re.Pattern[str]  # names that the set's folder may have
    archives: tuple[re.Pattern[str], ...]  # names that its archive may have, the best first
    wanted: str  # what was looked for, for people


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_HABITATS = {
    "mnist": _Habitat(
        mnist.NAME,
        _pattern(r"raw|archive|.*mnist.*"),
        (_pattern(r".*mnist.*"),),
        "train- and t10k-images-idx3-ubyte[.gz] with their labels-idx1",
    ),
    "cifar10": _Habitat(
        _pattern(r"(data_batch_[1-5]|test_batch)(\.bin)?|train|" + "|".join(cifar10.CLASSES)),
        _pattern(r".*cifar.?10(\D.*)?"),
        # What was never compressed with loss goes first.
        tuple(
            map(_pattern, (r".*cifar.?10\D.*python.*", r".*cifar.?10\D.*bin.*", r".*cifar.?10\D.*"))
        ),
        "data_batch_1 to 5 and test_batch (plain or .bin), train/<class>/*, or an archive of them",
    ),
    "cells": _Habitat(
        _pattern(r"annotations"),
        _pattern(r".*"),
        (_pattern(r".*(bccd|blood|cell).*"),),
        "Annotations/*.xml with JPEGImages/*, or an archive of them",
    ),
}
_BY_NAME = TableOptions()
MOST_SUBFOLDERS = 100
DEPTH = 2


def locate(spec: Spec) -> str:
    """The very folder, file or archive that a specification of files means."""
    if spec.kind == "digits":
        return ""
    if spec.kind == "synthetic":
        synthetic.parse(spec.where)
        return spec.where
    entry = paths.look(spec.where)
    if not entry.is_folder:
        return spec.where
    if spec.kind in ("folder", "images"):
        inside = [entry for entry in paths.children(spec.where) if not paths.hidden(entry.name)]
        archives = [entry.name for entry in inside if is_archive_name(entry.name)]
        alone = len(archives) == 1 and not any(entry.is_folder for entry in inside)
        return paths.join(spec.where, archives[0]) if alone else spec.where
    if spec.kind not in _HABITATS:
        return spec.where
    habitat = _HABITATS[spec.kind]
    found = _search(spec.where, habitat, DEPTH)
    if found is None:
        names = [entry.name for entry in paths.children(spec.where)]
        shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        raise UserError(f"{spec.where}: expected {habitat.wanted}; it holds {shown or 'nothing'}")
    return found


def _search(path: str, habitat: _Habitat, depth: int) -> str | None:
    entries = [entry for entry in paths.children(path) if not paths.hidden(entry.name)]
    names = [entry.name for entry in entries]
    if any(habitat.files.fullmatch(name) for name in names):
        return path
    subfolders = [e.name for e in entries if e.is_folder and habitat.folders.fullmatch(e.name)]
    for name in subfolders[:MOST_SUBFOLDERS] if depth else ():
        found = _search(paths.join(path, name), habitat, depth - 1)
        if found is not None:
            return found
    archives = [e.name for e in entries if not e.is_folder and is_archive_name(e.name)]
    for pattern in habitat.archives:
        matching = [name for name in archives if pattern.fullmatch(name)]
        if matching:
            return paths.join(path, matching[0])
    return paths.join(path, archives[0]) if len(archives) == 1 else None


def source_fingerprint(spec: Spec, path: str) -> str:
    """A hash that changes when what a specification means does."""
    if spec.kind in ("digits", "synthetic"):
        return "1"  # made by this version's own code
    return fingerprint(path)


def list_records(spec: Spec, path: str, spool: Path, table: TableOptions = _BY_NAME) -> Listing:
    """List the records of a specification."""
    if spec.kind == "digits":
        return list_stores("digits", digits.CLASSES, digits.load())
    if spec.kind == "synthetic":
        return list_stores(str(spec), synthetic.CLASSES, synthetic.parse(spec.where))
    if spec.kind == "shards":
        return list_shards(Path(path))
    if spec.kind == "parquet":
        return parquet.read(path, _name(spec), table)
    readers = {
        "mnist": mnist.read,
        "cifar10": cifar10.read,
        "cells": cells.read,
        "folder": folder.read,
        "images": unlabelled.read,
    }
    return readers[spec.kind](open_tree(path, spool), _name(spec))


def _name(spec: Spec) -> str:
    if spec.kind in _HABITATS:
        return spec.kind
    return f"{spec.kind}:{paths.base_name(spec.where)}"
