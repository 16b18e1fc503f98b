"""Columns of a table beside the predictions of its rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sixfold.core.errors import UserError
from sixfold.data.formats.kept_columns import KeptColumns


def table(root: Path) -> str:
    """Two folders with a file of one name; types and columns differ between them."""
    for number, day in enumerate(("1", "2")):
        file = root / f"day={day}" / "part-0.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        ids = pa.array([10 * number, 10 * number + 1], (pa.int32(), pa.int64())[number])
        columns = {"id": ids, "kind": pa.array(["a", None]).dictionary_encode(), "same": [1, 1]}
        pq.write_table(pa.table(columns | ({"late": ["x", "y"]} if number else {})), file)
    return str(root)


def test_values_are_those_of_the_rows(tmp_path: Path) -> None:
    kept = KeptColumns(table(tmp_path), "id", ["day", "late", "kind"])
    assert kept.names == ["id", "day", "late", "kind"]
    rows = ["day=2/part-0.parquet[1]", "day=1/part-0.parquet[1]", "day=2/part-0.parquet[0]"]
    columns = [column.to_pylist() for column in kept.of(rows)]
    assert columns == [[11, 1, 10], ["2", "1", "2"], ["y", None, "x"], [None, None, "a"]]
    assert [len(column) for column in kept.of([])] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("identity", "others", "reason"),
    [
        ("iid", [], "--id-column 'iid': .* did you mean 'id'"),
        (None, ["lat"], "--keep-columns 'lat': .* did you mean 'late'"),
        ("same", [], "does not tell rows apart: 0 nulls, 1 values"),
        ("late", [], "does not tell rows apart: 2 nulls, 0 values"),
    ],
)
def test_columns_that_do_not_do_are_refused(
    tmp_path: Path, identity: str | None, others: list[str], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        KeptColumns(table(tmp_path), identity, others)
