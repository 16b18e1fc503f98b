"""DataFrames of images as a data set that ranks can open: the executors write tensor shards.

The one way in for DataFrames, of the estimator and of `sixfold.train`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sixfold.core.environment import cache_directory
from sixfold.core.errors import RunError, UserError, raise_problems, told_together
from sixfold.core.files import make_folder
from sixfold.core.locks import locked
from sixfold.core.version import versions
from sixfold.data.dataset import ALL_TRAIN, Shape
from sixfold.data.manifest import VALIDATION
from sixfold.data.targets import CLASSES
from sixfold.distributed.engines.spark_job import explain, is_cancelled
from sixfold.spark.prepared import ROW, Prepared, PreparedFile, is_mixed, name_of
from sixfold.spark.session import master_of, send_code
from sixfold.spark.table import (
    Targets,
    check_validation,
    check_weights,
    image_columns,
    label_columns,
    no_column_named,
    targets_of,
)
from sixfold.spark.writing import REPORT, Columns, PartitionWriter, Widener

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """How DataFrames are read."""

    image: str | None = None  # column of images; None: found by its name
    label: str | None = None
    weight: str | None = None  # column of how much each row counts
    validation: str | None = None  # boolean column of the rows that are for validation
    kind: str = CLASSES  # of targets, as asked for
    pixel_range: str | None = None
    resize: int | None = None
    skip: bool = False  # leave out rows whose image cannot be read, or that have no label


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written."""

    data: str  # as a specification
    rows: int
    unlabelled: int
    bad: int
    decoded: int  # images that were not prepared before
    label_values: tuple[float, ...] | None  # number of each class in the table, if it has one


@dataclass
class _Told:
    """What the tasks of all parts have said."""

    counts: Counter[str] = field(default_factory=Counter)
    shapes: Counter[Shape] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)  # of rows to learn from
    bad: list[tuple[str, str]] = field(default_factory=list)
    rows: dict[str, list[Any]] = field(default_factory=dict)  # of each part, in arrays of ROW


def root_of(session: Any, out: str | None) -> Path:
    """The folder for what is prepared, which driver and executors must share.

    `SIXFOLD_CACHE` names it; else it is the user's cache on a local master, and on a cluster lies
    beside the run directory, which is shared.
    """
    local = master_of(session).startswith("local")
    if out is None or os.environ.get("SIXFOLD_CACHE") or local:
        return cache_directory() / "data"
    return Path(out).absolute().parent / ".sixfold-cache"


def write_shards(
    frames: Mapping[str, DataFrame], root: Path, settings: TableSettings
) -> Written:  # fmt: skip
    """Have the executors write the images of DataFrames as tensor shards.

    Args:
        frames: the rows of the part "train", and perhaps of "test" and "validation".
        root: folder that driver and executors share; made if absent.
        settings: how they are read.

    Raises:
        UserError: with everything that keeps the rows from being a usable set.
    """
    with _in_one_line():
        return _write(frames, root, settings)


def _write(frames: Mapping[str, DataFrame], root: Path, settings: TableSettings) -> Written:
    learned, found = frames["train"], list[str]()
    for df in frames.values():
        if settings.validation is not None:
            with told_together(found):
                found += check_validation(df, settings.validation)
        if settings.weight is not None:
            with told_together(found):
                found += check_weights(df, settings.weight)
    with told_together(found):
        image = image_columns(learned, settings.image, settings.pixel_range)
    with told_together(found):
        labels = label_columns(learned, settings.label, settings.kind)
        missing = [name for name in labels if name not in learned.columns]
        found += [no_column_named(learned, "label", name) for name in missing]
    raise_problems(dict.fromkeys(found))  # before a job looks at the labels
    targets = targets_of(learned, labels, settings.kind)
    kind = settings.kind if targets.width else CLASSES
    columns = Columns(
        image=image[0],
        is_path=image[1],
        label=labels,
        kind=kind,
        numbers=targets.width,
        weight=settings.weight,
        validation=settings.validation,
    )
    weighted = settings.weight is not None
    pixel_range = image[0].pixel_range
    made = (settings.resize, targets.names, targets.numbers, kind, weighted, pixel_range)
    folder = root / name_of(made)
    make_folder(folder, "SIXFOLD_CACHE")
    send_code(learned.sparkSession)
    with locked(folder, wait=True):
        return _prepare(frames, folder, columns, targets, settings)


def _prepare(
    frames: Mapping[str, DataFrame],
    folder: Path,
    columns: Columns,
    targets: Targets,
    settings: TableSettings,
) -> Written:
    """Prepare rows in a folder that this process has to itself."""
    prepared, told, token = Prepared.open(folder), _Told(), secrets.token_hex(4)
    prepared.forget_lost()
    before = len(prepared.files)
    try:
        for part, df in frames.items():
            writer = PartitionWriter(
                folder=str(folder),
                token=token,
                columns=columns,
                classes=targets.numbers,
                resize=settings.resize,
                part=part,
            )
            _run(df, writer, prepared, told)
        fresh = np.concatenate([np.empty(0, ROW), *(r for own in told.rows.values() for r in own)])
        if len(prepared.files) > before:
            fresh = fresh[fresh["file"] >= before]
            prepared.save(np.concatenate([prepared.rows(), fresh]), token)
        raise_problems(_problems(told, targets, settings))
        if is_mixed(list(told.shapes)):
            _widen(frames["train"], prepared, told, token)
        chosen = {part: np.concatenate(rows) for part, rows in told.rows.items() if rows}
        counts = told.counts
        place, _ = prepared.choose(
            chosen,
            {
                "name": "DataFrame",
                "classes": targets.names,
                "dtype": columns.image.dtype,
                "kind": columns.kind,
                "weighted": columns.weight is not None,
                "bad": tuple(told.bad),
                "left_out": _left_out(told, ", ".join(columns.label)),
                "source": {
                    "spec": "DataFrame",
                    "pixel_range": columns.image.pixel_range,
                    "split": "train and test as given" if "test" in chosen else ALL_TRAIN,
                    "unlabelled": counts["unlabelled"],
                    "skipped": counts["unlabelled"] + counts["bad"],
                },
                "settings": {"resize": settings.resize, "order": "content"},
                "versions": versions(),
            },
        )
    finally:
        files = Prepared.open(folder).files
        listed = {name for file in files for name in file.names()}
        for path in folder.glob(f"{token}-*"):  # of tasks that were tried again, or twice at a time
            if path.name not in listed:
                path.unlink()
    return Written(
        data=f"shards:{place}",
        rows=counts["rows"],
        unlabelled=counts["unlabelled"],
        bad=counts["bad"],
        decoded=counts["decoded"],
        label_values=None if columns.numbers else _label_values(targets.numbers),
    )


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Tell what Spark raises, of a job or of a session that is gone, in one line."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("pyspark", "py4j", "grpc"):
            raise
        said = "its job was cancelled" if is_cancelled(error) else cause(str(error))
        if hasattr(error, "java_exception") and said.startswith("An error occurred while calling"):
            said = explain(error)
        raise RunError(f"Spark could not prepare the rows: {said}") from error


def cause(text: str) -> str:
    """The line of what Spark tells of a failed job that says why, with the usual remedy."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    python = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception): ", line)]
    own = [line for line in python if not line.startswith(("java.", "org."))]
    said = own[-1] if own else lines[0]
    if said.startswith("ModuleNotFoundError"):
        said += (
            " on an executor: set PYSPARK_PYTHON (or spark.pyspark.python) to a Python that has it "
            "before the session is made; `sixfold doctor` looks at every executor"
        )
    return said


def _run(df: DataFrame, writer: PartitionWriter, prepared: Prepared, told: _Told) -> None:
    """Have the executors prepare one part's rows; what they made is added to what is known."""
    columns = writer.columns
    wanted = [columns.image.name, *columns.image.beside, *columns.label]
    wanted += [name for name in (columns.validation, columns.weight) if name is not None]
    lacking = [name for name in dict.fromkeys(wanted) if name not in df.columns]
    if lacking:
        raise UserError(
            f"the {writer.part} rows have no column {', '.join(lacking)}, which the training rows "
            f"have; there are {', '.join(df.columns)}"
        )
    told_rows = df.select(*dict.fromkeys(wanted)).mapInArrow(writer, REPORT).collect()
    reports = [json.loads(row[0]) for row in told_rows]
    if failed := [report["failed"] for report in reports if "failed" in report]:
        raise UserError(f"executors cannot write to {writer.folder}: {failed[0]}")
    files: dict[str, dict[int, int]] = {}  # of each task, its files' numbers among all
    for report in reports:
        if (wrote := report.get("wrote")) is not None:
            task, _, _ = wrote["file"].rpartition("-")
            files.setdefault(task, {})[wrote.pop("number")] = len(prepared.files)
            prepared.files.append(PreparedFile(**{**wrote, "shape": tuple(wrote["shape"])}))
    for report in reports:
        if "task" not in report:
            continue
        for part, name in report["rows"].items():
            path = Path(writer.folder, name)
            if not path.is_file():
                raise UserError(
                    f"the executors have written nothing to {writer.folder} that is seen here: "
                    "set SIXFOLD_CACHE to a folder that this machine and all executors share"
                )
            own = np.load(path)
            for number, place in files.get(f"{writer.token}-{report['task']}", {}).items():
                own["file"][own["file"] == -1 - number] = place
            told.rows.setdefault(part, []).append(own)
        told.counts.update(report["counts"])
        for channels, height, width, count in report["shapes"]:
            told.shapes[channels, height, width] += count
        told.labels.update({int(label): count for label, count in report["labels"].items()})
        told.bad += [(name, reason) for name, reason in report["bad"]]


def _widen(df: DataFrame, prepared: Prepared, told: _Told, token: str) -> None:
    """Have files of grey images in colour too, since others of the set are."""
    used = np.unique(np.concatenate([r["file"] for rows in told.rows.values() for r in rows]))
    gray = [n for n in used if prepared.files[n].shape[0] == 1 and not prepared.files[n].colour]
    if not gray:
        return
    lines = [(json.dumps([prepared.files[n].file, prepared.files[n].shape]),) for n in gray]
    widener = Widener(folder=str(prepared.folder), token=token)
    rows = df.sparkSession.createDataFrame(lines, REPORT).repartition(len(lines))
    made = dict(json.loads(row[0]) for row in rows.mapInArrow(widener, REPORT).collect())
    for file in prepared.files:
        if file.file in made:
            file.colour = made[file.file]
    prepared.save(prepared.rows(), f"{token}-colour")


def _left_out(told: _Told, label: str) -> tuple[tuple[str, str], ...]:
    counts, found = told.counts, []
    if counts["unlabelled"]:
        found.append(
            ("DataFrame", f"rows without a label (column {label!r}): {counts['unlabelled']}")
        )
    if counts["bad"] > len(told.bad):
        more = counts["bad"] - len(told.bad)
        found.append(("DataFrame", f"further images that cannot be read: {more}"))
    return tuple(found)


def _label_values(numbers: Mapping[str, int]) -> tuple[float, ...] | None:
    """The table's own numbers of the classes, in their order; None if they are words.

    Digits that a double cannot tell from those of another class are words, too.

    >>> _label_values({"3": 0, "7": 1}), _label_values({"7": 0, "007": 1})
    ((3.0, 7.0), None)
    """
    texts = sorted(numbers, key=numbers.__getitem__)
    if not all(text.isdecimal() for text in texts):
        return None
    values = tuple(float(text) for text in texts)
    return values if len({*values, np.inf}) > len(values) else None


def _problems(told: _Told, targets: Targets, settings: TableSettings) -> list[str]:
    """What keeps the rows from being a data set."""
    found, counts = [], told.counts
    if counts["unlabelled"] and not settings.skip:
        found.append(
            f"{counts['unlabelled']} of {counts['rows']} rows have no label (null): give them one, "
            "or leave them out by --on-error skip"
        )
    if counts["bad"] and not settings.skip:
        found += [f"row {name}: {reason}" for name, reason in told.bad[:10]]
        found.append(
            f"{counts['bad']} of {counts['rows']} rows cannot be used: repair them, or leave them "
            "out by --on-error skip"
        )
    if not told.shapes:
        return [*found, "the DataFrame has no image that can be read"]
    if len(told.shapes) > 1 and not is_mixed(list(told.shapes)):
        listed = [
            f"{n} of {w}x{h} with {c} channels" for (c, h, w), n in told.shapes.most_common(10)
        ]
        found.append(
            f"images of {len(told.shapes)} shapes (width x height): {', '.join(listed)}: give "
            "--resize N"
        )
    name = settings.validation
    if name is not None and not told.rows.get(VALIDATION):
        found.append(
            f"--validation-column {name!r} is true in no row: leave it out, or mark rows to "
            "validate on"
        )
    if not any(len(rows) for rows in told.rows.get("train", [])):
        found.append("all rows are for validation: there is nothing to learn from")
    elif settings.weight is not None and not counts["weighted"]:
        found.append(f"--weight-column {settings.weight!r} is 0 in all rows to learn from")
    elif not targets.width:
        lost = [name for number, name in enumerate(targets.names) if not told.labels[number]]
        if lost:
            found.append(f"no image to learn from is left of the classes {', '.join(lost[:20])}")
    return found
