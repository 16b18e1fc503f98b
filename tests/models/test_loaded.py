"""What is imported of a user's project is what its files say, and is known by its content."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sixfold.cli import main
from sixfold.core.errors import RunError, UserError
from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.models.importing import find
from sixfold.models.project import project_files, refuse_edited
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

NET = """
from torch import nn
import helper

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, helper.WIDTH), nn.Linear(helper.WIDTH, 10))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a network in two modules."""
    (tmp_path / "newnet.py").write_text(NET)
    (tmp_path / "helper.py").write_text("WIDTH = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [*sys.modules]:
        if name.partition(".")[0] in {"newnet", "helper", "mine", "parts"}:
            del sys.modules[name]


def width(name: str = "newnet:net", **arguments: Any) -> int:
    text = ",".join(f"{key}={value}" for key, value in arguments.items())
    network = build(ModelConfig(model=name, model_args=text), shape=(1, 8, 8), classes=10, seed=0)
    last = list(network.modules())[-1]
    assert isinstance(last, torch.nn.Linear)
    return last.in_features


def settings(configure: Configure, **changes: Any) -> TrainConfig:
    usual = {"data": "digits", "model": "newnet:net", "batch_size": 8, "steps": 2, "out": "run"}
    return configure(**(usual | changes))


def test_an_edited_module_is_imported_afresh_and_trained(
    project: Path, configure: Configure
) -> None:
    first = train(settings(configure))
    (project / "helper.py").write_text("WIDTH = 6\n")
    with pytest.raises(UserError, match=r"helper.py has changed since"):
        train(settings(configure))
    second = train(settings(configure, overwrite=True))
    assert (first["parameters"], second["parameters"]) == (64 * 4 + 54, 64 * 6 + 76)


@pytest.mark.parametrize("file", ["newnet.py", "helper.py"])
def test_what_the_user_imported_before_the_edit_is_not_used(project: Path, file: str) -> None:
    import newnet  # type: ignore[import-not-found]

    (project / file).write_text((project / file).read_text().replace("4", "7"))
    if file == "helper.py":
        assert width() == 7
        assert newnet.helper.WIDTH == 4
    else:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            build(ModelConfig(model="newnet:net"), shape=(1, 8, 8), classes=10, seed=0)(
                torch.zeros(1, 1, 8, 8)
            )


def test_what_was_not_edited_is_imported_once(project: Path) -> None:
    find("newnet:net")
    module = sys.modules["newnet"]
    assert find("newnet:net") is module.net
    os.utime(project / "newnet.py", (0, 0))
    assert find("newnet:net") is module.net


def test_an_edit_of_the_same_size_in_the_same_second_counts(project: Path) -> None:
    sys.path.insert(0, str(project))
    file = project / "helper.py"
    when = file.stat().st_mtime_ns
    importlib.import_module("helper")  # writes the .pyc file, which is current by size and second
    del sys.modules["helper"]
    file.write_text("WIDTH = 5\n")
    os.utime(file, ns=(when, when))
    assert width() == 5


def test_a_reload_by_the_user_is_noticed(project: Path) -> None:
    assert width() == 4
    file = project / "helper.py"
    file.write_text("WIDTH = 9\n")
    importlib.reload(sys.modules["helper"])
    file.write_text("WIDTH = 4\n")  # as it was when Sixfold imported it
    assert width() == 4


def test_helpers_of_the_same_name_in_other_folders_are_other_helpers(project: Path) -> None:
    assert width() == 4
    other = project / "second"
    other.mkdir()
    (other / "mine.py").write_text(NET)
    (other / "helper.py").write_text("WIDTH = 11\n")
    assert width("second/mine.py:net") == 11
    assert width() == 4
    (other / "newnet.py").write_text(NET)
    assert width("second/newnet.py:net") == 11


COMPUTED = """
import importlib, json, os
from pathlib import Path
from torch import nn

HERE = Path(__file__).parent
part = importlib.import_module("parts." + os.environ.get("PART", "a").lower())

def net(kind=1):
    late = importlib.import_module(f"parts.late{kind}")
    table = json.loads((HERE / ("table" + str(kind) + ".json")).read_text())
    return nn.Sequential(nn.Flatten(), part.Block(64, late.WIDTH), nn.Linear(late.WIDTH, table))
"""


@pytest.fixture
def computed(project: Path) -> Path:
    """A network that puts together the names of what it is made of."""
    (project / "newnet.py").write_text(COMPUTED)
    parts = project / "parts"
    parts.mkdir()
    for name in ("a", "b"):
        (parts / f"{name}.py").write_text("from torch import nn\nclass Block(nn.Linear): pass\n")
    for kind in (1, 2):
        (parts / f"late{kind}.py").write_text("WIDTH = 4\n")
        (project / f"table{kind}.json").write_text("10")
    return project


def test_what_a_network_imports_and_opens_by_computed_names_belongs_to_it(computed: Path) -> None:
    assert width() == 4
    found = project_files("newnet:net")
    names = {path.relative_to(computed).as_posix() for path in found.early}
    assert names == {"newnet.py", "parts/a.py"}
    names = {path.relative_to(computed).as_posix() for path in found.late}
    assert names == {"parts/late1.py", "table1.json"}


@pytest.mark.parametrize("afresh", [True, False])
@pytest.mark.parametrize("file", ["parts/a.py", "parts/late1.py", "table1.json"])
def test_an_edit_of_what_has_a_computed_name_is_another_run(
    computed: Path, configure: Configure, file: str, afresh: bool
) -> None:
    first = train(settings(configure))
    (computed / "parts" / "b.py").write_text("other")
    (computed / "table2.json").write_text("other")
    for name in [name for name in sys.modules if name.startswith(("newnet", "parts"))]:
        if afresh:
            del sys.modules[name]
    assert train(settings(configure)) == first
    path = computed / file
    path.write_text(path.read_text() + ("\n" if file.endswith("json") else "\n# other\n"))
    with pytest.raises(UserError, match=rf"{file} has changed since"):
        train(settings(configure))
    (computed / file).unlink()
    with pytest.raises(UserError, match=rf"{file} is no longer there|importing|raised"):
        train(settings(configure))


EDITS = """
def edits():
    made = net()
    if os.environ.get("EDIT"):
        with open("helper.py", "a") as file:
            file.write("# edited")
    return made
"""


def test_an_edit_after_a_run_has_begun_ends_it(
    project: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network edits itself once it has been built, as its author might meanwhile."""
    (project / "newnet.py").write_text("import os\n" + NET + EDITS)
    train(settings(configure, model="newnet:edits"))
    monkeypatch.setenv("EDIT", "1")
    with pytest.raises(RunError, match=r"newnet:edits: helper.py changed after this run had begun"):
        train(settings(configure, model="newnet:edits", out="other"))
    refuse_edited("newnet:edits", {"absent.py": "on a cluster it lies elsewhere"})


def test_members_of_a_sweep_are_of_one_network(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "newnet.py").write_text("import os\n" + NET + EDITS)
    command = ["sweep", "quality", "--data", "digits", "--model", "newnet:edits", "--steps", "2"]
    command += ["--vary", "lr=0.1,0.2", "--engine", "inline", "--out", "sweep"]
    assert main(command) == 0
    monkeypatch.setenv("EDIT", "1")
    assert main([*command, "--seed", "3", "--overwrite"]) == 1
    assert "helper.py changed after this run had begun" in capsys.readouterr().err
