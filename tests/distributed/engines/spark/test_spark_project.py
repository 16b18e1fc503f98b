"""What of the user's project travels to the executors."""

from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.distributed.engines import spark_project
from sixfold.distributed.engines.spark_project import collect


def travelling(source: Path) -> set[str]:
    project = collect(source)
    return {path.relative_to(project.root).as_posix() for path in project.files}


def test_a_module_travels_with_what_it_imports_and_with_the_data_beside_it(tmp_path: Path) -> None:
    files = {
        "net.py": "import helper\nfrom blocks.conv import block\nimport torch\n",
        "helper.py": "def late():\n    import late\n    importlib.import_module('plug')\n",
        "late.py": "",
        "plug.py": "",
        "blocks/conv.py": "from blocks import sizes\n",
        "blocks/sizes.py": "",
        "blocks/table.csv": "1",
        "blocks/deep/more.py": "",
        "anchors.json": "[]",
        "assets/names.txt": "a",
        "unrelated.py": "",
        ".secret/key": "",
        "__pycache__/net.cpython-311.pyc": "",
        "runs/one/attempt": "1",
        "runs/one/model.safetensors": "x",
        "env/pyvenv.cfg": "",
        "env/note.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert travelling(tmp_path / "net.py") == {
        *("net.py", "helper.py", "late.py", "plug.py", "anchors.json", "assets/names.txt"),
        *("blocks/conv.py", "blocks/sizes.py", "blocks/table.csv", "blocks/deep/more.py"),
    }


def test_what_a_name_that_is_put_together_may_mean_travels(tmp_path: Path) -> None:
    files = {
        "net.py": "from importlib import import_module\n"
        "def net(kind):\n"
        "    import_module(f'parts.{kind}')\n"
        "    import_module('block_' + kind)\n"
        "    import_module('tail_{}'.format(kind))\n"
        "    import_module('neck_%s' % kind)\n",
        "parts/a.py": "import deeper\n",
        "deeper.py": "",
        "block_1.py": "",
        "tail_2.py": "",
        "neck_3.py": "",
        "other_4.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert travelling(tmp_path / "net.py") == {*files} - {"other_4.py"}


def test_a_package_travels_whole_with_the_modules_beside_it_that_it_imports(tmp_path: Path) -> None:
    for name in ("pack/__init__.py", "pack/sub/net.py", "pack/sub/w.bin", "tools.py", "beside.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import tools\n" if name.endswith("net.py") else "")
    found = travelling(tmp_path / "pack")
    assert {"pack/__init__.py", "pack/sub/net.py", "pack/sub/w.bin", "tools.py"} <= found


def test_what_is_too_large_stays_behind_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_project, "LARGEST_DATA_BYTES", 10)
    monkeypatch.setattr(spark_project, "LARGEST_NAMED_BYTES", 30)
    monkeypatch.setattr(spark_project, "LARGEST_FOLDER_FILES", 3)
    (tmp_path / "net.py").write_text("A = 'named.bin'\nB = 'sub/huge.bin'\nC = 'huge.bin'\n")
    (tmp_path / "named.bin").write_bytes(bytes(20))
    (tmp_path / "other.bin").write_bytes(bytes(20))
    (tmp_path / "huge.bin").write_bytes(bytes(40))
    (tmp_path / "images").mkdir()
    for number in range(5):
        (tmp_path / "images" / f"{number}.png").touch()
    project = collect(tmp_path / "net.py")
    assert {path.name for path in project.files} == {"net.py", "named.bin"}
    assert {path.name for path in project.left_out} == {"other.bin", "huge.bin", "images"}
    (warning,) = project.warnings()
    assert "'huge.bin'" in warning
    assert "absolute path" in warning
    assert "left behind: huge.bin (40 bytes, of at most 30)" in project.told()


def test_a_file_with_the_name_of_an_imported_library_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import json, pytest, sixfold\n")
    for name in ("json.py", "pytest.py", "sixfold.py"):
        (tmp_path / name).touch()
    assert travelling(tmp_path / "net.py") == {"net.py"}


def test_what_is_no_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a \.py file"):
        collect(tmp_path / "absent.py")
