"""JSON files that were written by Sixfold are known to be whole."""

import json
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_json
from sixfold.core.run_directory import read_json, read_whole_json

VALUE = {"lr": 0.05, "name": "größer", "nothing": None, "classes": ["a", "b"], "nan": float("inf")}


def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, VALUE)
    whole = file.read_bytes()
    assert json.loads(whole) == read_json(file) == read_whole_json(file) == VALUE
    for place in range(len(whole)):
        for changed in (bytes([whole[place] ^ 1]), bytes([whole[place] ^ 64]), b"", b"7"):
            if changed == whole[place : place + 1]:
                continue
            file.write_bytes(whole[:place] + changed + whole[place + 1 :])
            try:
                assert read_whole_json(file) == VALUE, (place, changed)
            except UserError as error:
                told = str(error)
            else:
                continue
            assert told.startswith(f"{file} is damaged (")
            assert "\n" not in told
            assert read_json(file) is None
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError) if read_json(file) is None else pytest.MonkeyPatch.context():
            assert read_whole_json(file) == VALUE


def test_files_of_others_need_no_checksum(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text in ('{"a": 1}', '{"a": 1}\n', '{\n"a": 1\n}\n\n'):
        file.write_text(text)
        assert read_whole_json(file) == {"a": 1}
    write_json(file, {"a": 1})
    lines = file.read_text().replace("1", "2").splitlines()
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match="whoever has edited the file removes that line"):
        read_whole_json(file)
    file.write_text("\n".join(lines[:-1]))
    assert read_whole_json(file) == {"a": 2}
    assert read_whole_json(tmp_path / "absent.json") is None
    file.write_text("[1]")
    with pytest.raises(UserError, match="holds no JSON object"):
        read_whole_json(file)
    assert parse_json("[1]  \n") == [1]
