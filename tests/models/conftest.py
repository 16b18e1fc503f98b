"""A current directory with the user's own code in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """A function that writes a file of Python code below a fresh current directory.

    Modules imported from there are forgotten afterwards.
    """
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write_code(path: str, code: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
        return file

    yield write_code
    mine = [name for name in set(sys.modules) - before if _lies_in(name, tmp_path)]
    for name in mine:
        del sys.modules[name]


def _lies_in(name: str, directory: Path) -> bool:
    """Whether an imported module, or a package without __init__.py, is from a directory."""
    file = getattr(sys.modules[name], "__file__", None)
    paths = [file] if file else list(getattr(sys.modules[name], "__path__", []))
    return any(Path(path).is_relative_to(directory) for path in paths)
