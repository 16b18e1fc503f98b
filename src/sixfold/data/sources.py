"""From a specification to a listing: where the data is, and which format reads it."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from sixfold.core.errors import UserError, raise_problems
from sixfold.data import digits, paths, synthetic
from sixfold.data.archives import is_archive_name, unpack_hint
from sixfold.data.config import PreparationConfig
from sixfold.data.file_tree import fingerprint, open_tree
from sixfold.data.formats import cells, cifar10, folder, mnist, parquet
from sixfold.data.manifest import load_manifest
from sixfold.data.records import Listing, list_stores
from sixfold.data.shard_files import list_shards
from sixfold.data.spec import Spec, TableOptions, parse_spec
from sixfold.data.targets import MULTI_LABEL, REGRESSION


@dataclass(frozen=True)
class _Layout:
    """How to find a set in a folder that may hold other things."""

    files: re.Pattern[str]  # names that show that a folder is the set
    folders: re.Pattern[str]  # names that the set's folder may have
    archives: tuple[re.Pattern[str], ...]  # names that its archive may have, the best first
    wanted: str  # what was looked for, for people
    is_one_set: bool = False  # whether all that have such names are one set in several forms


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_LAYOUTS = {
    "mnist": _Layout(
        mnist.NAME,
        _pattern(r"raw|archive|.*mnist.*"),
        (_pattern(r".*mnist.*"),),
        "train- and t10k-images-idx3-ubyte[.gz] with their labels-idx1",
    ),
    "cifar10": _Layout(
        _pattern(r"(data_batch_[1-5]|test_batch)(\.bin)?|train|" + "|".join(cifar10.CLASSES)),
        _pattern(r".*cifar.?10(\D.*)?"),
        # What was never compressed with loss goes first.
        tuple(
            map(_pattern, (r".*cifar.?10\D.*python.*", r".*cifar.?10\D.*bin.*", r".*cifar.?10\D.*"))
        ),
        "data_batch_1 to 5 and test_batch (plain or .bin), train/<class>/*, or an archive of them",
        is_one_set=True,
    ),
    "cells": _Layout(
        _pattern(r"annotations"),
        _pattern(r".*"),
        (_pattern(r".*(bccd|blood|cell).*"),),
        "Annotations/*.xml with JPEGImages/*, or an archive of them",
    ),
}
MOST_SUBFOLDERS = 100
LAYOUT = 2  # Raised whenever the same source and settings would give other bytes
FOLDER_LAYOUT = 1  # The same for folders alone
TABLE_LAYOUT = 3  # The same for tables alone
DEPTH = 2


def locate(spec: Spec) -> str:
    """The very folder, file or archive that a specification of files means."""
    if spec.kind == "digits":
        return ""
    if spec.kind == "hf":
        return spec.where
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
    if spec.kind not in _LAYOUTS:
        return spec.where
    layout = _LAYOUTS[spec.kind]
    found = _search(spec.where, layout, DEPTH)
    if found is None:
        names = [entry.name for entry in paths.children(spec.where)]
        shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        raise UserError(
            f"{spec.where}: expected {layout.wanted}; it holds {shown or 'nothing'}"
            f"{unpack_hint(names)}"
        )
    return found


def _search(path: str, layout: _Layout, depth: int) -> str | None:
    entries = [entry for entry in paths.children(path) if not paths.hidden(entry.name)]
    names = [entry.name for entry in entries]
    if any(layout.files.fullmatch(name) for name in names):
        return path
    subfolders = [e.name for e in entries if e.is_folder and layout.folders.fullmatch(e.name)]
    inside = {
        name: found
        for name in (subfolders[:MOST_SUBFOLDERS] if depth else ())
        if (found := _search(paths.join(path, name), layout, depth - 1)) is not None
    }
    if inside:
        return inside[_only(path, list(inside), layout)]
    archives = [e.name for e in entries if not e.is_folder and is_archive_name(e.name)]
    for pattern in layout.archives:
        matching = [name for name in archives if pattern.fullmatch(name)]
        if matching:
            return paths.join(path, _only(path, matching, layout))
    return paths.join(path, archives[0]) if len(archives) == 1 else None


def _only(path: str, names: list[str], layout: _Layout) -> str:
    """The folder or archive to take; refuses several sets, unless one is called just `MNIST`."""
    plain = [name for name in names if name.partition(".")[0].lower() == "mnist"]
    if len(plain) == 1:
        return plain[0]
    if len(names) > 1 and not layout.is_one_set:
        raise UserError(
            f"{path}: holds several sets ({', '.join(names[:5])}): give the path of one of them, "
            f"such as {paths.join(path, names[0])}"
        )
    return names[0]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be prepared, and how."""

    spec: Spec  # the source
    path: str  # where the source was found
    fingerprint: str  # changes when what is there does
    resize: int | None  # rows and columns, if not the images' own
    on_bad: str  # "fail" or "skip"
    table: TableOptions = field(default_factory=TableOptions)  # how a table is read

    @property
    def key(self) -> str:
        """Names the shards' bytes: another key means other shards."""
        parts = [LAYOUT, self.spec.kind, self.path, self.fingerprint, self.resize]
        if self.spec.kind == "folder":
            parts += [FOLDER_LAYOUT]
        if self.spec.kind == "parquet":
            parts += [TABLE_LAYOUT, self.table.image, self.table.label, self.table.labelled]
            parts += [self.table.pixel_range] if self.table.pixel_range else []
            if self.table.target in (MULTI_LABEL, REGRESSION) or self.table.weight is not None:
                parts += [self.table.target, self.table.weight]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def by_content(self) -> bool:
        """Whether the source's own order means nothing: that of a table, or of shards of one."""
        if self.spec.kind == "shards":
            return load_manifest(Path(self.path)).by_content
        return self.spec.kind == "parquet"

    def list_records(self, spool: Path) -> Listing:
        """List the records of the source."""
        spec, path = self.spec, self.path
        if spec.kind == "digits":
            return list_stores("digits", digits.CLASSES, digits.load())
        if spec.kind == "synthetic":
            return list_stores(str(spec), synthetic.CLASSES, synthetic.parse(spec.where))
        if spec.kind == "shards":
            return list_shards(Path(path))
        name = spec.kind
        if name not in _LAYOUTS:
            name += f":{paths.base_name(spec.where)}"
        if spec.kind == "parquet":
            return parquet.read(path, name, self.table)
        readers = {
            "mnist": mnist.read,
            "cifar10": cifar10.read,
            "cells": cells.read,
            "folder": folder.read,
            "images": folder.read_unlabelled,
        }
        return readers[spec.kind](open_tree(path, spool), name)


def column_problems(source: str, table: TableOptions) -> list[str]:
    """Columns that are named though the data is no table."""
    if source.partition(":")[0] in ("parquet", "hf"):
        return []
    given = {
        "--image-column": table.image,
        "--label-column": table.label,
        "--pixel-range": table.pixel_range,
        "--weight-column": table.weight,
    }
    return [
        f"{option} {name}: only parquet:PATH has columns, and the data is {source}"
        for option, name in given.items()
        if name is not None
    ]


def plan(source: str, *, resize: int | None, on_bad: str, table: TableOptions | None = None) -> Job:
    """Find the source, and check the settings."""
    table = table or TableOptions()
    problems = PreparationConfig(resize=resize, on_error=on_bad).problems()
    problems += column_problems(source, table)
    try:
        spec = parse_spec(source)
        path = locate(spec)
        # What is made is made by this version's own code.
        found = "1" if spec.kind in ("digits", "synthetic") else fingerprint(path)
    except UserError as error:
        problems += error.problems
    raise_problems(problems)
    if spec.kind == "cells" and resize is None:
        resize = cells.DEFAULT_SIZE
    return Job(spec=spec, path=path, fingerprint=found, resize=resize, on_bad=on_bad, table=table)
