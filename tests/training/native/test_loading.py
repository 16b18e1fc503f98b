"""The C module is loaded only where it can be used, from wherever it is."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

import sixfold
from sixfold.training.native import loading
from sixfold.training.native.loading import CHECKSUM, check_build, load

MODULE = Path(loading.__file__).with_name(loading._file_name())

has_build = pytest.mark.skipif(
    not MODULE.is_file() or loading._BUILD.search(MODULE.read_bytes()) is None,
    reason="the C module was not built here",
)


def build(needs: str = "", version: int = loading.VERSION) -> bytes:
    return b"\x7fELF..." + f"sixfold-kernels version={version} needs={needs};".encode() + b"\0..."


@pytest.mark.parametrize("needs", ["", "avx2,", "avx2,fma,"])
def test_a_build_for_this_processor_passes(needs: str) -> None:
    check_build(build(needs), frozenset({"avx2", "fma", "sse2"}))


@pytest.mark.parametrize(
    ("code", "has", "why"),
    [
        (build("avx2,avx512f,"), frozenset({"avx2"}), "needs avx512f: not on this processor"),
        (build("avx2,"), None, "cpuinfo is not there"),
        (build(version=2), frozenset({"avx2"}), "version 2, not 4"),
        (b"\x7fELF", frozenset({"avx2"}), "does not say"),
    ],
)
def test_other_builds_are_refused(code: bytes, has: frozenset[str] | None, why: str) -> None:
    with pytest.raises(loading._Refused, match=why):
        check_build(code, has)


@has_build
def test_the_module_of_this_installation() -> None:
    found = load()
    assert found.origin == "installed"
    assert found.module.version == loading.VERSION
    assert loading._BUILD.search(found.module.build.encode())


def from_zip(folder: Path, code: bytes | None, checksum: str | None = None, path: str = "") -> str:
    """Where the module is from in a Python that has the package in a zip file alone."""
    archive = folder / "sixfold.zip"
    root = Path(next(iter(sixfold.__path__)))
    with zipfile.ZipFile(archive, "w") as zipped:
        for name in (
            *(
                "__init__.py",
                "core/__init__.py",
                "core/lazy.py",
                "core/processor.py",
                "core/version.py",
            ),
            *("training/__init__.py", "training/native/__init__.py", "training/native/loading.py"),
        ):
            zipped.write(root / name, f"sixfold/{name}")
        if code is not None:
            zipped.writestr(f"sixfold/training/native/{MODULE.name}", code)
            checksum = checksum or sha256(code).hexdigest()
            zipped.writestr(f"sixfold/training/native/{MODULE.name}{CHECKSUM}", checksum)
    program = (
        "import os, sys; sys.path[:0] = sys.argv[1:]\n"
        "before = os.listdir('/proc/self/fd')\n"
        "from sixfold.training.native import loading; found = loading.load()\n"
        "assert (found.module is None) == found.origin.startswith('none'), found\n"
        "assert len(os.listdir('/proc/self/fd')) == len(before)\n"
        "print(found.origin)"
    )
    command = [sys.executable, "-S", "-c", program, str(archive), path]
    done = subprocess.run(command, capture_output=True, text=True, env={}, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@has_build
def test_the_module_that_came_in_the_zip_file(tmp_path: Path) -> None:
    assert from_zip(tmp_path, MODULE.read_bytes()) == "shipped"


@has_build
def test_an_installation_on_the_host_goes_first(tmp_path: Path) -> None:
    root = Path(next(iter(sixfold.__path__))).parent
    assert from_zip(tmp_path, MODULE.read_bytes(), path=str(root)) == "installed"


@pytest.mark.skipif(sys.platform != "linux", reason="compiled code travels on Linux only")
def test_what_came_and_cannot_be_used_is_not_loaded(tmp_path: Path) -> None:
    assert "no kernels" in from_zip(tmp_path, None)
    assert "its checksum differs" in from_zip(tmp_path, build(), "0" * 64)
    assert "not on this processor" in from_zip(tmp_path, build("avx9000,"))
    assert "version 2, not 4" in from_zip(tmp_path, build(version=2))
    assert from_zip(tmp_path, build()).startswith("none: ")  # the linker's complaint


@has_build
def test_an_unusable_installation_leaves_the_one_that_came(tmp_path: Path) -> None:
    other = tmp_path / "other" / "sixfold" / "training" / "native"
    other.mkdir(parents=True)
    (other / MODULE.name).write_bytes(build("avx9000,"))
    path = str(tmp_path / "other")
    assert from_zip(tmp_path, MODULE.read_bytes(), path=path) == "shipped"
    assert from_zip(tmp_path, None, path=path).count(";") == 1  # both reasons
