"""What the user has in hand becomes a name that any process can open."""

import functools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sixfold.core.errors import UserError
from sixfold.models import check_origin
from sixfold.models.building import build
from sixfold.models.config import ModelConfig
from sixfold.models.identity import Identity
from sixfold.models.importing import source_files
from sixfold.models.objects import open_object, pack
from sixfold.models.packed import beside, is_packed
from sixfold.models.project import project_files, project_hashes

CELL = """
import functools, math
import torch
from torch import nn
from torch.nn import functional as F

WIDTH = 8
NAMES = frozenset({"a", "bb", "ccc", "dddd"})

def activation(x, *, slope=0.1):
    return F.leaky_relu(x, slope)

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)

    def forward(self, x):
        return activation(self.conv(x)) if "bb" in NAMES else x

class Net(nn.Module):
    scale = 2.0

    def __init__(self, classes=10):
        super().__init__()
        self.block, self.last = Block(WIDTH), nn.Linear(WIDTH, classes)

    @property
    def doubled(self):
        return self.scale * 2

    @staticmethod
    def pooled(x):
        return x.mean((2, 3))

    def forward(self, x):
        return self.last(self.pooled(self.block(x))) * self.scale

def make(classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, classes))

def outer(factor):
    def inner(x):
        return x * factor
    return inner

tripled = outer(3.0)
quick = lambda x: x + WIDTH
part = functools.partial(make, width=5)
"""


def run_cell(code: str = CELL) -> SimpleNamespace:
    """What a notebook's namespace holds after a cell."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<ipython-input-1>", "exec"), space)
    return SimpleNamespace(**space)


THINGS = ["Net", "make", "tripled", "quick", "part"]


def in_another_process(code: str, **environment: str) -> list[str]:
    """What a program prints, by words."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_a_notebook_defines_opens_in_another_process(tmp_path: Path) -> None:
    cell = run_cell()
    names = [pack(getattr(cell, what), tmp_path / what, "model") for what in THINGS]
    assert all(map(is_packed, names))
    code = (
        f"from sixfold.models.objects import open_object\n"
        f"print(*(callable(open_object(name)) for name in {names!r}))"
    )
    assert in_another_process(code) == ["True"] * len(THINGS)


@pytest.mark.full
def test_the_same_cell_in_another_kernel_has_the_same_identities() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from tests.models.test_objects import identities\n"
        "print(*identities())"
    )
    expected = identities()
    assert identities("# a comment\n\n" + CELL) == expected
    for seed in "01":  # of the hashes that decide the order of sets
        assert in_another_process(code, PYTHONHASHSEED=seed) == expected


def identities(code: str = CELL) -> list[str]:
    cell = run_cell(code)
    return [Identity(getattr(cell, what)).digest for what in THINGS]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("slope=0.1", "slope=0.2"),
        ("WIDTH = 8", "WIDTH = 9"),
        ('"ccc"', '"cc"'),
        ("leaky_relu(x, slope)", "relu(x)"),
        ("scale = 2.0", "scale = -2.0"),
        ("self.scale * 2", "self.scale * 3"),
        ("x.mean((2, 3))", "x.amax((2, 3))"),
        ("nn.Conv2d(1, width, 3)", "nn.Conv2d(1, width, 5)"),
        ("class Block(nn.Module)", "class Block(nn.Identity)"),
    ],
)
def test_an_edit_gives_another_identity(old: str, new: str) -> None:
    assert CELL.count(old) == 1
    assert Identity(run_cell().Net).digest != Identity(run_cell(CELL.replace(old, new)).Net).digest


def test_what_a_closure_holds_counts() -> None:
    space = run_cell()
    assert Identity(space.outer(3.0)).digest == Identity(space.tripled).digest
    assert Identity(space.outer(4.0)).digest != Identity(space.tripled).digest


def test_values_count() -> None:
    torch.manual_seed(0)
    network = run_cell().Net()
    before = Identity(network).digest
    network.eval()
    assert Identity(network).digest == before
    with torch.no_grad():
        network.last.bias[3] += 1
    assert Identity(network).digest != before
    values = [
        np.arange(3),
        np.arange(3.0),
        [0, 1, 2],
        (0, 1, 2),
        {0: 1},
        {1: 0},
        True,
        1,
        1.0,
        -0.0,
        0.0,
    ]
    assert len({Identity(value).digest for value in values}) == len(values)
    cycle: list[Any] = [1]
    cycle.append(cycle)
    assert Identity(cycle).digest != Identity([1, [1]]).digest


def test_a_class_is_called_and_an_instance_has_its_weights(tmp_path: Path) -> None:
    space = run_cell()
    name = pack(space.Net, tmp_path, "model")
    one, two = (
        build(ModelConfig(model=name), shape=(1, 8, 8), classes=7, seed=seed) for seed in (0, 1)
    )
    assert one.last.out_features == 7  # type: ignore[union-attr]
    assert not torch.equal(one.last.weight, two.last.weight)  # type: ignore[union-attr, arg-type]
    network = space.Net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    name = pack(network, tmp_path, "model")
    for seed in (0, 1):
        made = build(ModelConfig(model=name), shape=(1, 8, 8), classes=10, seed=seed)
        state = made.state_dict()
        assert all(torch.equal(state[key], value) for key, value in before.items())
        with torch.no_grad():
            made.last.weight.zero_()  # type: ignore[union-attr, operator]
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    made = build(
        ModelConfig(model=pack(network, tmp_path, "model")), shape=(4, 1, 4), classes=4, seed=0
    )
    assert made[1].weight is made[0].weight  # type: ignore[index]


def test_what_can_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack(nn.Linear, tmp_path, "model") == "torch.nn.modules.linear:Linear"
    (tmp_path / "objects_near.py").write_text(CELL)
    (tmp_path / "far" / "objects_pkg").mkdir(parents=True)
    (tmp_path / "far" / "objects_far.py").write_text(CELL)
    (tmp_path / "far" / "objects_pkg" / "__init__.py").write_text("")
    (tmp_path / "far" / "objects_pkg" / "nets.py").write_text(CELL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "far"))
    import objects_far  # type: ignore[import-not-found]
    import objects_near  # type: ignore[import-not-found]
    from objects_pkg import nets  # type: ignore[import-not-found]

    assert pack(objects_near.Net, tmp_path / "objects", "model") == "objects_near:Net"
    assert pack(objects_far.Net, tmp_path / "objects", "model") == f"{objects_far.__file__}:Net"
    name = pack(nets.Net, tmp_path / "objects", "model")
    assert is_packed(name)  # a package that lies elsewhere: by name, with its folder
    assert open_object(name) is nets.Net
    assert sorted(project_files(name).early) == [
        tmp_path / "far" / "objects_pkg" / file for file in ("__init__.py", "nets.py")
    ]
    assert source_files(name) == [tmp_path / "far" / "objects_pkg"]
    before = project_hashes(name)
    (tmp_path / "far" / "objects_pkg" / "nets.py").write_text(CELL + "\n")
    assert project_hashes(name) != before


def test_a_stranger_s_object_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    mine = pack(run_cell().Net, run / "objects", "model")
    weights = run / "model.safetensors"
    check_origin(mine, weights)
    header, _, _ = (
        (run / "objects" / mine.rpartition("/")[2].partition(":")[0]).read_bytes().partition(b"\n")
    )
    evil = run / "objects" / "model-0.pkl"
    evil.write_bytes(
        header + b"\n" + pickle.dumps(functools.partial(os.system, f"touch {tmp_path}/ran"))
    )
    with pytest.raises(UserError, match=r"not packed by you on this machine.*--trust-model"):
        check_origin(f"{evil}:Net", weights)
    with pytest.raises(UserError, match="not packed by you"):
        check_origin(f"{tmp_path}/nothing.pkl:Net", weights)
    assert not (tmp_path / "ran").exists()


def test_an_object_is_found_beside_a_run_that_was_moved(tmp_path: Path) -> None:
    name = pack(run_cell().Net, tmp_path / "old" / "objects", "model")
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(UserError, match="cannot be read"):
        open_object(name)
    moved = beside(name, tmp_path / "new" / "model.safetensors")
    assert open_object(moved).__name__ == "Net"
    assert beside("nets:Net", tmp_path / "new" / "model.safetensors") == "nets:Net"


def holds_a_lock() -> Callable[[Any], Any]:
    lock = threading.Lock()
    return lambda _: lock


def test_what_cannot_be_packed_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss: function cannot be sent to ranks: .*leave what"):
        pack(holds_a_lock(), tmp_path, "loss")
    assert not list(tmp_path.iterdir())


def test_damage_is_told(tmp_path: Path) -> None:
    name = pack(run_cell().Net, tmp_path, "model")
    file = Path(name.rpartition(":")[0])
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="opening Net raised"):
        open_object(name)
    file.write_bytes(whole.replace(b'"python": "3.', b'"python": "2.'))
    with pytest.raises(UserError, match=r"packed by Python 2."):
        open_object(name)
    file.write_bytes(b"no header")
    with pytest.raises(UserError, match="is damaged"):
        open_object(name)
    assert pack(run_cell().Net, tmp_path, "model") == name  # written anew
    assert open_object(name).__name__ == "Net"
