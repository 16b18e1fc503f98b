"""Pages from installed packages and from a zip file, and what a page that fails costs."""

import logging
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from tests.conftest import small_config

import sixfold
from sixfold.training.report import optional_page
from sixfold.training.run import train

SOURCE = Path(sixfold.__file__).parent
TEMPLATES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.html"))

READ = """
import importlib, sys
import sixfold
from sixfold.core.html.frame import _template
assert ".zip" in sixfold.__path__[0]
for name in sys.argv[1:]:
    _template(name)
"""


def test_every_template_is_read_from_a_zip_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sixfold.zip", "w") as zipped:
        for path in SOURCE.rglob("*"):
            if path.is_file() and path.suffix in (".py", ".html", ".css", ".js"):
                zipped.write(path, path.relative_to(SOURCE.parent))
    names = [path.name for path in TEMPLATES]
    assert len(names) == 3
    done = subprocess.run(
        [sys.executable, "-c", READ, *names],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "sixfold.zip")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_module_reads_files_beside_itself_but_by_resources() -> None:
    """In a zip file there is nothing beside `__file__`."""
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any(word in path.read_text() for word in ("Path(__file__)", "FileSystemLoader"))
    }
    # These two ask where Sixfold itself lies, and read nothing there.
    assert found == {"core/installed.py", "training/native/loading.py"}


def test_all_that_is_no_code_is_installed_with_the_package() -> None:
    settings = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["sixfold"]
    packaged = {path for pattern in patterns for path in SOURCE.glob(pattern)}
    built = {".py", ".pyc", ".c", ".inc", ".so"}  # code, and what the C module is built from
    resources = {path for path in SOURCE.rglob("*") if path.is_file() and path.suffix not in built}
    assert SOURCE / "core" / "html" / "page.html" in resources
    assert resources <= packaged


def test_a_page_that_cannot_be_written_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), optional_page(Path("report.html")):
        raise KeyError("test_accuracy\nand more")
    (record,) = caplog.records
    assert "page report.html was not written" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_report_that_fails_leaves_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise FileNotFoundError("no template")

    monkeypatch.setattr("sixfold.training.report.page.render", broken)
    result = train(small_config(out=str(tmp_path / "run")))
    assert result["steps"] == 6
    assert (tmp_path / "run" / "result.json").is_file()
    assert "was not written" in caplog.text
