"""Finding the user's own factory, and saying why it cannot be found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.models import source_file
from sixfold.models.importing import find, importable

NET = """
from torch import nn
size = 3
class Net(nn.Module):
    @staticmethod
    def make(): return Net()
def make(): return Net()
built = Net()
"""
Write = Callable[..., Path]


def problem(name: str) -> str:
    with pytest.raises(UserError) as caught:
        find(name)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


@pytest.mark.parametrize("attribute", ["make", "Net", "Net.make"])
def test_functions_classes_and_nested_attributes_are_found(write: Write, attribute: str) -> None:
    write("my_net.py", NET)
    assert type(find(f"my_net:{attribute}")()).__name__ == "Net"


def test_packages_and_paths_are_found(write: Write) -> None:
    write("my_pkg/__init__.py", "")
    write("my_pkg/deep/nets.py", "from my_pkg.deep.parts import make")
    write("my_pkg/deep/parts.py", NET)
    write("elsewhere/other_net.py", NET)
    assert find("my_pkg.deep.nets:make").__module__ == "my_pkg.deep.parts"
    assert find("elsewhere/other_net.py:make").__module__ == "other_net"
    assert find("./elsewhere/other_net.py:make").__module__ == "other_net"


def test_installed_modules_are_found() -> None:
    assert find("collections:OrderedDict.fromkeys")("a") == {"a": None}


def test_the_search_path_is_put_back(write: Write) -> None:
    write("my_net.py", NET)
    before = list(sys.path)
    find("my_net:make")
    problem("my_net:nothing")
    with importable("my_net:make"):
        assert sys.path[0] == str(Path.cwd())
    assert sys.path == before


@pytest.mark.parametrize("name", ["a b:c", "my_net:", ":make", "my-net:make", "my_net:1", "m:a..b"])
def test_malformed_names_are_explained(write: Write, name: str) -> None:
    assert "package.module:factory" in problem(name)


def test_missing_modules_say_where_they_were_looked_for(write: Write) -> None:
    assert f"no nets.py in {Path.cwd()}, and none installed" in problem("nets:make")
    assert "no module 'gone.nets': no gone/nets.py" in problem("gone.nets:make")
    assert f"no gone.py in {Path.cwd() / 'sub'}" in problem("sub/gone.py:make")
    write("my_net.py", NET)
    assert "no module 'my_net.sub'" in problem("my_net.sub:make")


def test_failures_inside_a_module_are_told_from_missing_ones(write: Write) -> None:
    write("needs.py", "\nimport no_such_dependency")
    write("broken.py", "def make(:")
    write("leaves.py", "raise SystemExit(3)")
    write("fails.py", "\n\nraise ValueError('first line\\nsecond')")
    assert "importing needs raised ModuleNotFoundError" in problem("needs:make")
    assert "(needs.py line 2)" in problem("needs:make")
    assert "SyntaxError" in problem("broken:make")
    assert "broken.py, line 1" in problem("broken:make")
    assert "SystemExit: 3 (leaves.py line 1)" in problem("leaves:make")
    assert problem("fails:make").endswith("raised ValueError: first line (fails.py line 3)")


def test_what_cannot_be_called_is_explained(write: Write) -> None:
    write("my_net.py", NET)
    assert "my_net has no 'maker'; did you mean make?" in problem("my_net:maker")
    assert "Net has no 'mak'" in problem("my_net:Net.mak")
    assert "is a int: it cannot be called" in problem("my_net:size")
    assert "a network that is already built" in problem("my_net:built")


def test_a_file_named_like_an_imported_module_is_refused(write: Write) -> None:
    write("json.py", NET)
    assert "has the name of another module" in problem("json:make")


def test_source_is_the_file_or_the_whole_package(write: Write) -> None:
    file = write("my_net.py", "raise ValueError('must not be run')")
    package = write("my_pkg/__init__.py", "raise ValueError('must not be run')").parent
    spaced = write("space/nets.py", NET).parent
    assert source_file("my_net:make") == file.resolve()
    assert source_file("my_net.py:make") == file.resolve()
    assert source_file("my_pkg.deep.nets:make") == package.resolve()
    assert source_file("space.nets:make") == spaced.resolve()


@pytest.mark.parametrize(
    "name", ["lenet5", "nonsense", "torch.nn:Linear", "json:loads", "sys:exit"]
)
def test_installed_networks_need_no_source(write: Write, name: str) -> None:
    assert source_file(name) is None


def test_source_of_a_missing_module_is_an_error(write: Write) -> None:
    with pytest.raises(UserError, match=r"no nets\.py"):
        source_file("nets:make")
