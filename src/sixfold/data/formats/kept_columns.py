"""Columns of a table that stand beside the predictions of its rows, so that both can be joined."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sixfold.core.errors import UserError, raise_problems
from sixfold.data.formats.columns import no_such_column
from sixfold.data.formats.table_files import TableFile, list_files, opened, refuse_inflated


class KeptColumns:
    """Some columns of a table, by the names that prediction gives to its rows.

    The values of the column `identity` must tell all rows apart.
    """

    def __init__(self, path: str, identity: str | None, others: Sequence[str]) -> None:
        files, _ = list_files(path)
        self._files = {file.name: file for file in files}
        self.names = list(dict.fromkeys([*([identity] if identity else []), *others]))
        refuse_inflated(files, self.names)
        self.types = _types(path, files, self.names, "--id-column" if identity else "")
        if identity is not None:
            _check_identity(path, [_read(file, identity, self.types[identity]) for file in files])
        self._last: tuple[str, list[Any]] = ("", [])

    def of(self, rows: Sequence[str]) -> list[Any]:
        """An Arrow chunked array for each of `names`, of rows such as ``dt=1/part-0.parquet[17]``.

        Rows of one file stand together.
        """
        import pyarrow as pa

        found: list[list[Any]] = [[] for _ in self.names]
        pairs = [name.removesuffix("]").rpartition("[") for name in rows]
        for file, group in groupby(pairs, key=lambda pair: pair[0]):
            places = pa.array([int(row) for _, _, row in group])
            for column, values in zip(found, self._columns(file), strict=True):
                column.append(values.take(places))
        return [
            pa.chunked_array([c for part in parts for c in part.chunks], self.types[name])
            for name, parts in zip(self.names, found, strict=True)
        ]

    def _columns(self, name: str) -> list[Any]:
        """All columns of a file; rows come file by file, so only the last one is remembered."""
        if self._last[0] != name:
            file = self._files[name]
            self._last = (name, [_read(file, column, self.types[column]) for column in self.names])
        return self._last[1]


def _types(
    path: str, files: Sequence[TableFile], names: Sequence[str], first: str
) -> dict[str, Any]:
    import pyarrow as pa

    columns = {name: kind for file in reversed(files) for name, kind in file.columns.items()}
    problems = []
    types = {}
    for place, name in enumerate(names):
        option = first if first and place == 0 else "--keep-columns"
        found = [file.columns[name] for file in files if name in file.columns]
        plain = [getattr(kind, "value_type", kind) if pa.types.is_dictionary(kind) else kind
                 for kind in found]  # fmt: skip
        if not found:
            problems.append(no_such_column(f"{option} {name!r}: {path}", name, columns))
            continue
        try:
            schemas = [pa.schema([("x", kind)]) for kind in plain]
            types[name] = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        except pa.ArrowException:
            kinds = " and ".join(dict.fromkeys(map(str, plain)))
            problems.append(f"{option} {name!r}: is {kinds} in different files: write one type")
    raise_problems(problems)
    return types


def _read(file: TableFile, column: str, kind: Any) -> Any:
    """A whole column of a file, as chunked array of one type."""
    import pyarrow as pa

    if column in file.folders:
        return pa.chunked_array([pa.array([file.folders[column]] * file.rows, kind)])
    if column not in file.columns:
        return pa.chunked_array([pa.nulls(file.rows, kind)])
    with opened(file.path) as table:
        return table.read(columns=[column]).column(column).cast(kind)


def _check_identity(path: str, columns: Sequence[Any]) -> None:
    import pyarrow as pa

    whole = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    try:
        counts = whole.value_counts()
    except pa.ArrowException:
        raise UserError(f"{path}: --id-column is {whole.type}: expected plain values") from None
    more = [
        item["values"].as_py()
        for item in counts
        if item["counts"].as_py() > 1 and item["values"].is_valid
    ]
    if whole.null_count or more:
        shown = ", ".join(repr(value) for value in more[:3])
        raise UserError(
            f"{path}: --id-column does not tell rows apart: {whole.null_count} nulls, {len(more)} "
            f"values that occur more than once ({shown}): use --keep-columns for it"
        )
