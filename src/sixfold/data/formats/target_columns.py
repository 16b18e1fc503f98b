"""Columns of a table that hold numbers, labels of which an image may have several, or weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError, raise_problems
from sixfold.data.formats.columns import LABEL_NAMES, choose, innermost
from sixfold.data.formats.folder import sort_classes
from sixfold.data.formats.table_files import TableFile, opened
from sixfold.data.spec import TableOptions
from sixfold.data.targets import REGRESSION


def choose_targets(path: str, files: Sequence[TableFile], options: TableOptions) -> list[str]:
    """Names of the columns that hold targets: those asked for, or one found by its name."""
    columns = {name: kind for file in reversed(files) for name, kind in file.columns.items()}
    if options.label is not None:
        # A column whose own name has commas is one.
        asked = [options.label] if options.label in columns else options.label.split(",")
        names = [name.strip() for name in asked if name.strip()]
        if not options.labelled and not any(name in columns for name in names):
            return []  # of images that are only predicted
        problems: list[str] = []
        for name in names:
            try:
                if name not in columns:
                    choose(path, files, "label", name)  # says what there is
            except UserError as error:
                problems += error.problems
        raise_problems(problems)
        return names
    for wanted in LABEL_NAMES:
        for name in columns:
            if name.lower() == wanted:
                return [name]
    return []


def read_targets(
    files: Sequence[TableFile], columns: Sequence[str], options: TableOptions
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names of the targets, and those of every row, (N, K); NaN where a row has none.

    A column of lists holds a row's numbers, or the names or places of its labels; other columns are
    a target each, named after it.
    """
    tables = [_values(file, columns) for file in files]
    is_list = len(columns) == 1 and any(
        innermost(file.columns[columns[0]]) != file.columns[columns[0]]
        for file in files
        if columns[0] in file.columns
    )
    if is_list:
        rows = [value for table in tables for value in table[columns[0]]]
        if options.target == REGRESSION:
            return _vectors(columns[0], rows)
        return _sets(rows)
    by_column = [
        [_number(name, value, options.target) for table in tables for value in table[name]]
        for name in columns
    ]
    return tuple(columns), np.array(by_column, np.float64).T.copy()


def read_weights(path: str, files: Sequence[TableFile], column: str) -> NDArray[np.float64]:
    """How much every row counts, (N,)."""
    choose(path, files, "weight", column)
    values = [value for file in files for value in _values(file, [column])[column]]
    found = np.array([_number(column, value, REGRESSION) for value in values], np.float64)
    if not ((found >= 0) & np.isfinite(found)).all():
        raise UserError(
            f"--weight-column {column}: {path} has weights that are below 0, null or not finite: "
            "expected numbers of at least 0"
        )
    if not (found > 0).any():
        raise UserError(f"--weight-column {column}: all weights in {path} are 0")
    return found


def refuse_targets(path: str, label: str, targets: NDArray[np.float64] | None) -> None:
    """Refuse a table from which nothing can be learned."""
    if targets is None or np.isnan(targets).any(1).all():
        raise UserError(
            f"{path}: column {label!r} is null in all rows: there is nothing to learn from; "
            "`sixfold predict` scores them"
        )


def _values(file: TableFile, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Values of columns, None where the file has no such column."""
    own = [name for name in columns if name in file.columns and name not in file.folders]
    with opened(file.path) as source:
        table = source.read(columns=own)
    read = {name: table.column(name).to_pylist() for name in own}
    return {name: read.get(name, [file.folders.get(name)] * file.rows) for name in columns}


def _number(column: str, value: Any, kind: str) -> float:
    """A cell as a number; NaN for null. A label is 0 or 1."""
    if value is None:
        return float("nan")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"column {column!r} holds {str(value)[:80]!r}: expected numbers; "
            + ("give --loss cross_entropy for names" if kind == REGRESSION else "0 or 1 a label")
        ) from None
    if kind != REGRESSION and number == number and number not in (0.0, 1.0):
        raise UserError(
            f"column {column!r} holds {number:g}: expected 0 or 1, whether an image has the label"
        )
    if number in (float("inf"), float("-inf")):
        raise UserError(f"column {column!r} holds {number:g}: expected finite numbers")
    return number


def _vectors(column: str, rows: Sequence[Any]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Lists of as many numbers each."""
    widths = {len(row) for row in rows if row is not None}
    if len(widths) != 1:
        shown = ", ".join(map(str, sorted(widths)[:5])) or "no"
        raise UserError(f"column {column!r}: lists of {shown} numbers: expected as many in each")
    (width,) = widths
    empty = [None] * width
    found = [
        [_number(column, value, REGRESSION) for value in (empty if row is None else row)]
        for row in rows
    ]
    names = tuple(f"{column}_{place}" for place in range(width))
    return (column,) if width == 1 else names, np.array(found, np.float64)


def _sets(rows: Sequence[Any]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Lists of the names, or of the numbers, of labels."""
    names = tuple(sort_classes({str(value) for row in rows if row is not None for value in row}))
    place = {name: number for number, name in enumerate(names)}
    found = np.zeros((len(rows), len(names)))
    for number, row in enumerate(rows):
        if row is None:
            found[number] = np.nan
            continue
        for value in row:
            found[number, place[str(value)]] = 1
    return names, found
