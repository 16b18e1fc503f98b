"""Reading JSON lines: damaged ones are counted, long files are sampled evenly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sixfold.core.files import parse_json_lines
from sixfold.core.html.json_lines import read_table

NAMES = ("step", "data_s")


@given(st.lists(st.sampled_from(['{"a": 1}', "{", "[1]", "3", "", "nan", "{} {}", '"x"'])))
def test_parse_equals_one_by_one(lines: list[str]) -> None:
    found, skipped = [], 0
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            skipped += bool(line.strip())
            continue
        if isinstance(value, dict):
            found.append(value)
        else:
            skipped += 1
    assert parse_json_lines(lines) == (found, skipped)


def test_the_last_line_of_a_step_counts_and_order_does_not(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text(
        '{"step": 2, "data_s": 5}\n{"step": 1, "data_s": 1}\nrubbish\n'
        '{"step": 2, "data_s": 7}\n{"data_s": 3}\n{"step": 3, "data_s": "x"}\n'
    )
    table = read_table(path, NAMES, limit_bytes=1 << 20)
    assert table["step"].tolist() == [1, 2, 3]
    assert table["data_s"].tolist()[:2] == [1, 7]
    assert np.isnan(table["data_s"][2])
    assert table.skipped == 2
    assert table.sampled == 1


def test_a_long_file_is_sampled_evenly_and_no_cut_line_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    n = 200_000
    path.write_text("".join(f'{{"step": {k}, "data_s": 0.{k:06d}}}\n' for k in range(1, n + 1)))
    table = read_table(path, NAMES, limit_bytes=1 << 20)
    assert table.skipped == 0
    assert 0.1 < table.sampled < 0.5
    assert abs(len(table) / n - table.sampled) < 0.05
    assert table["step"][0] == 1
    assert table["step"][-1] == n
    assert np.diff(table["step"]).max() < n / 50
    assert np.allclose(table["data_s"], table["step"] / 1e6)
