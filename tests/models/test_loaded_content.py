"""A module is recognised in its source, or not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sixfold.models.loaded import is_as_written

SOURCE = '''"""A network."""
from __future__ import annotations

import dataclasses, functools
import torch.nn.functional as F
from torch import nn

WIDTHS: tuple[int, ...] = (4, 8)
Act = nn.ReLU

class Net(nn.Module):
    """Classifies."""
    scale = 2.0

    def __init__(self, width=4, *, act=nn.ReLU):
        super().__init__()
        self.layer = nn.Linear(width, 10)

    def forward(self, x):
        return F.relu(self.layer(x))

def build(width: int = 4):
    return Net(width)

half = functools.partial(build, 2)
names = frozenset(["a", "b", "c"])

@dataclasses.dataclass
class Options:
    width: int = 4
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module's file, imported by Python."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "written_net.py"
    file.write_text(SOURCE)
    __import__("written_net")
    yield file
    del sys.modules["written_net"]


def test_a_module_is_recognised_in_its_source(file: Path) -> None:
    assert is_as_written(sys.modules["written_net"], file)
    file.write_text("# a comment\n" + SOURCE)
    assert is_as_written(sys.modules["written_net"], file)
    assert sys.modules["written_net"].Net.__module__ == "written_net"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("(4, 8)", "(4, 9)"),
        ("(4, 8)", "[4, 8]"),
        ("(4, 8)", "tuple(sorted([4, 9]))"),
        ("half = functools.partial(build, 2)", "half = functools.partial(build, 3)"),
        ("Act = nn.ReLU", "Act = nn.GELU"),
        ("Act = nn.ReLU", "Act = nn.ReLU\nMore = 1"),
        ("scale = 2.0", "scale = 3.0"),
        ("scale = 2.0", "scale = 2"),
        ("self.layer(x)", "self.layer(-x)"),
        ("width=4,", "width=5,"),
        ("act=nn.ReLU", "act=nn.GELU"),
        ("width: int = 4", "width: int = 5"),
        ("(nn.Module)", "(nn.Identity)"),
        ("import torch.nn.functional as F", "import torch.nn.init as F"),
        ("from torch import nn", "from torch import optim as nn"),
        ("return Net(width)", "return Net(2 * width)"),
        ("def build", "@staticmethod\ndef build"),
        ("def build", "def build("),
        ("    width: int = 4", "    width: int = 6"),
        ("names = ", "raise ValueError; names = "),
    ],
)
def test_an_edit_is_seen(file: Path, before: str, after: str) -> None:
    assert before in SOURCE
    file.write_text(SOURCE.replace(before, after))
    assert not is_as_written(sys.modules["written_net"], file)
