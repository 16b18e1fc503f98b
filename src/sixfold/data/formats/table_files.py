"""The files of a table: which there are, what they hold, and which part they belong to.

Folders named ``column=value``, as Spark's ``partitionBy`` makes them, are columns of the table.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from sixfold.core.errors import UserError, printable, raise_problems
from sixfold.data import paths
from sixfold.data.formats.layout import ROLES
from sixfold.data.manifest import shortened
from sixfold.data.signatures import OTHER_FORMAT, is_text, recognise

SUFFIXES = (".parquet", ".pq", ".parq")
MOST_BYTES, MOST_NUMBERS, MOST_INFLATION = 2**28, 2**26, 200
"""Of a column in a row group that is unpacked at once: what is larger was not packed so tightly,
unless it is all of one value. Bytes of pictures hardly pack at all, pixels of MNIST by 10."""

PART_COLUMNS = ("split", "part", "partition", "subset", "set", "fold", "phase")
"""Only these columns' folders tell parts apart: ``label=train`` may be a picture of a train."""

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class TableFile:
    """A Parquet file that has rows."""

    path: str
    name: str  # its path relative to the data
    rows: int
    columns: dict[str, Any]  # Arrow type of each column, those of its folders too
    folders: dict[str, str | None]  # values of the columns that its folders name; None: null
    metadata: dict[bytes, bytes]  # of its schema
    footer: Any = field(compare=False, repr=False)  # sizes of its row groups

    @property
    def part(self) -> str | None:
        """What its name says: "train", "test", "validation", or nothing."""
        segments = []
        for segment in self.name.split("/"):
            column, equals, value = segment.partition("=")
            if not equals or column.lower() in PART_COLUMNS:
                segments.append(value if equals else segment)
        words = set(re.split(r"[^a-z]+", "/".join(segments).lower()))
        found = [part for part, names in ROLES.items() if words & set(names)]
        return found[0] if len(found) == 1 else None


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """A Parquet file; what Arrow says of a damaged one becomes one line."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with paths.open_file(path) as source, pq.ParquetFile(source) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if (other := _other_kind(path)) is not None:
            raise UserError(f"{path}: {other}") from None
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: not a readable Parquet file, or damaged ({reason}): fetch it again"
        ) from None


def _other_kind(path: str) -> str | None:
    """What a file is that is no Parquet file, with the remedy, as far as its first bytes tell."""
    with paths.open_file(path) as source:
        start = source.read(4096)
    if start.startswith(b"PAR1"):
        return None
    if (found := recognise(start)) is not None:
        what, remedy = found
        return f"{what}, not Parquet" + (f": {remedy}" if remedy != OTHER_FORMAT else "")
    if is_text(start):
        return (
            "text (CSV or JSON), not Parquet: read it with pandas and give its images and labels "
            "as arrays, sixfold.train(model, (images, labels)), or write a column of images by "
            "to_parquet"
        )
    return None


def list_files(path: str) -> tuple[list[TableFile], list[tuple[str, str]]]:
    """The files of a table that have rows: one file, or all below a folder.

    Returns:
        The files; and (name, reason) of what in the folder is not read.
    """
    names, left_out = _names(path) if paths.look(path).is_folder else ([""], [])
    files: list[TableFile] = []
    problems: list[str] = []
    for name in names:
        try:
            files.append(_open(paths.join(path, name), name or paths.base_name(path)))
        except UserError as error:
            problems += error.problems
    raise_problems(problems)
    # Spark writes files without rows, and other programs give them columns of no type.
    files = [file for file in files if file.rows]
    if not files:
        raise UserError(f"{path}: the Parquet files have no rows")
    return files, left_out


def _names(path: str) -> tuple[list[str], list[tuple[str, str]]]:
    entries = [entry for entry in paths.walk_all(path) if not entry.is_folder]
    found = [entry.name for entry in entries if not entry.left_out]
    if any("_delta_log" in name.split("/") for name in found) or any(
        re.search(r"(^|/)metadata/[^/]*\.metadata\.json$", name) for name in found
    ):
        raise UserError(
            f"{path}: is a Delta or Iceberg table, whose files also hold rows that were deleted or "
            "changed since: write it as plain Parquet (df.write.parquet) and give that folder"
        )
    names: list[str] = []
    others: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        name, folder = entry.name, entry.name.rpartition("/")[0]
        is_table = name.lower().endswith(SUFFIXES)
        # As Spark has it: what it has not finished lies in _temporary, and _SUCCESS is a mark.
        hidden = any(s.startswith(("_", ".")) and "=" not in s for s in name.split("/"))
        if is_table and not hidden and not entry.left_out:
            names.append(name)
        elif is_table:
            others[folder, "hidden, as in Spark"] += 1
        elif not hidden:
            others[folder, "not a Parquet file"] += 1
    if not names:
        files = [entry.name for entry in entries][:5]
        raise UserError(
            f"{path}: no files *.parquet in it; it holds {', '.join(files) or 'no files'}"
        )
    return names, [
        (f"{folder}/" if folder else ".", f"{count} file{'s' * (count > 1)}: {reason}")
        for (folder, reason), count in others.items()
    ]


def _open(path: str, name: str) -> TableFile:
    import pyarrow as pa

    with opened(path) as file:
        schema = file.schema_arrow
        folders = _folder_values(name)
        if twice := sorted({n for n in schema.names if schema.names.count(n) > 1}):
            raise UserError(
                f"{path}: several columns are called {twice[0]!r}: rename all but one of them"
            )
        return TableFile(
            path=path,
            name=printable(name),
            rows=file.metadata.num_rows,
            # As in Spark, a folder's value goes before a column of that name.
            columns={f.name: f.type for f in schema} | dict.fromkeys(folders, pa.string()),
            folders=folders,
            metadata=schema.metadata or {},
            footer=file.metadata,
        )


def refuse_inflated(files: Sequence[TableFile], columns: Collection[str | None]) -> None:
    """Refuse columns that unpack to far more than was written, before any of it is unpacked."""
    problems = []
    for file in files:
        for number in range(file.footer.num_row_groups):
            group = file.footer.row_group(number)
            for place in range(group.num_columns):
                chunk = group.column(place)
                name = chunk.path_in_schema.partition(".")[0]
                if name not in columns:
                    continue
                size, packed = chunk.total_uncompressed_size, chunk.total_compressed_size
                what, many = f"{size} bytes", size > max(MOST_BYTES, MOST_INFLATION * packed)
                if chunk.num_values > max(MOST_NUMBERS, MOST_INFLATION * packed):
                    what, many = f"{chunk.num_values} values", True
                if many:
                    problems.append(
                        f"{file.path}: column {name!r}, row group {number}: {packed} bytes unpack "
                        f"to {what}, as no images or labels do: write the table again without "
                        "such rows, or in smaller row groups"
                    )
    if problems:
        raise UserError(shortened(problems))


def _folder_values(name: str) -> dict[str, str | None]:
    """Columns that the folders of a path name.

    >>> _folder_values("label=sea%2Fgull/day=__HIVE_DEFAULT_PARTITION__/part-0.parquet")
    {'label': 'sea/gull', 'day': None}
    """
    values: dict[str, str | None] = {}
    for folder in name.split("/")[:-1]:
        column, equals, value = folder.partition("=")
        if equals and column:
            values[unquote(column)] = None if value == NULL_PARTITION else unquote(value)
    return values


def by_part(files: Sequence[TableFile]) -> tuple[dict[str, list[TableFile]], str]:
    """Files of each part as their names say, and how these were told apart.

    Where no file is for testing, validation files are; where there are none of these either, all
    others are for training.
    """
    found = {part: [file for file in files if file.part == part] for part in ROLES}
    train, test, validation = (found[part] for part in ("train", "test", "validation"))
    if train and test and validation:
        return found, "names with train and with test; those with validation are that part"
    for name, tested in (("test", test), ("validation", validation)):
        if train and tested:
            return {"train": train, "test": tested}, f"names with train and with {name}"
    return {"train": train or list(files)}, "80/20, stratified by class"
