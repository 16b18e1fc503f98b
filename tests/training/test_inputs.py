"""Runs are told apart by the content of what enters them, not by the settings alone."""

import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sixfold
from sixfold.cli import main
from sixfold.core.errors import UserError
from sixfold.distributed.config import EngineConfig
from sixfold.models.project import project_files
from sixfold.prediction.config import PredictConfig, PredictionConfig
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

NETWORK = """
from pathlib import Path
from torch import nn
from blocks.head import head

def net(shape, classes):
    width = int((Path(__file__).parent / "width.txt").read_text())
    c, h, w = shape
    return nn.Sequential(nn.Conv2d(c, width, 3), nn.ReLU(), nn.Flatten(),
                         head(width * (h - 2) * (w - 2), classes))
"""
HEAD = """
from torch import nn

def head(inputs, classes):
    return nn.Linear(inputs, classes)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder: a network in two files that reads a third, and pictures."""
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "head.py").write_text(HEAD)
    (tmp_path / "mynet.py").write_text(NETWORK)
    (tmp_path / "width.txt").write_text("4")
    (tmp_path / "unrelated.py").write_text("train = 1")
    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "set" / part / label
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = draw.integers(0, 255, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("mynet", "blocks", "blocks.head"):
        sys.modules.pop(name, None)


def settings(configure: Configure, **changes: Any) -> TrainConfig:
    return configure(
        **{
            "data": "folder:set", "model": "mynet.py:net", "batch_size": 8, "steps": 2,
            "out": "run",
        }
        | changes
    )  # fmt: skip


def append(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(path.read_text() + text)

    return write


def redraw(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("mynet.py", append("# other"), "--model mynet.py:net: {file} has changed since"),
        ("blocks/head.py", append("# other"), "{file} has changed since"),
        ("width.txt", append("0"), "{file} has changed since"),
        ("set/train/a/0.png", redraw, "--data folder:{root}/set: its images or labels have"),
        ("set/test/b/9.png", redraw, "--data folder:{root}/set: its images or labels have"),
    ],
)
def test_a_run_of_other_content_is_another_run(
    configure: Configure,
    project: Path,
    file: str,
    change: Callable[[Path], None],
    named: str,
) -> None:
    first = train(settings(configure))
    assert train(settings(configure)) == first
    change(project / file)
    for changes in ({}, {"resume": True}):
        with pytest.raises(UserError) as refused:
            train(settings(configure, **changes))
        text = str(refused.value)
        assert "--overwrite" in text
        assert named.format(file=project / file, root=project) in text
    other = train(settings(configure, overwrite=True))
    assert train(settings(configure)) == other


def test_what_does_not_enter_a_run_changes_nothing(configure: Configure, project: Path) -> None:
    first = train(settings(configure))
    append("\ntrain = 2")(project / "unrelated.py")
    for picture in (project / "set").rglob("*.png"):  # as a copy of the set would have them
        os.utime(picture, (time.time() + 9, time.time() + 9))
    assert train(settings(configure)) == first


def test_weights_of_other_content_are_other_weights(configure: Configure, tmp_path: Path) -> None:
    for seed in (1, 2):
        train(configure(seed=seed, out=str(tmp_path / f"seed{seed}")))
    config = configure(weights=str(tmp_path / "seed1"), out=str(tmp_path / "run"))
    train(config)
    name = "model.safetensors"
    shutil.copyfile(tmp_path / "seed2" / name, tmp_path / "seed1" / name)
    with pytest.raises(UserError, match=r"--weights: .*seed1/model.safetensors has changed since"):
        train(config)


def test_an_edited_network_whose_weights_fit_is_told(
    configure: Configure, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(settings(configure))
    command = ["predict", "run", "--data", "folder:set", "--out", "p.parquet", "--engine", "inline"]
    assert main(command) == 0
    assert "changed since" not in capsys.readouterr().err
    append("\nACTIVATION = 'other'")(project / "blocks" / "head.py")
    assert main(command) == 0
    assert "warning: blocks/head.py changed since mynet.py:net was trained" in (
        capsys.readouterr().err
    )
    config = PredictConfig(
        prediction=PredictionConfig(run="run", data="folder:set", out="q"),
        engine=EngineConfig(engine="inline"),
    )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        sixfold.predict(config)
        sixfold.load("run")
    assert sum("blocks/head.py changed since" in str(one.message) for one in heard) == 2


def test_imports_are_followed_without_running_them(tmp_path: Path) -> None:
    package = tmp_path / "nets"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "main": "from . import parts\nimport torch\nfrom .deep import *\nraise SystemExit",
        "parts": "import importlib\nimportlib.import_module('nets.late')",
        "deep": "'nets.unused'",
        "late": "",
        "unused": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    found = project_files(f"{tmp_path}/nets/main.py:net").early
    assert {file.name for file in found} == {"main.py"}  # a plain file, as `python main.py` has it
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found = project_files("nets.main:net").early
    names = {file.stem for file in found}
    assert names == {"__init__", "main", "parts", "deep", "late"}


def test_a_variable_that_the_network_reads_belongs_to_the_run(
    project: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = """
import os
GAIN, HOME = os.environ.get('MY_GAIN', '1'), os.getenv('HOME')
def read(name):
    return os.environ.get(name)
BIAS, ALL = read('MY_BIAS'), dict(os.environ)
"""
    (project / "blocks" / "head.py").write_text(read + HEAD)
    first = train(settings(configure))
    monkeypatch.setenv("HOME", str(project))
    assert train(settings(configure))["wall_s"] == first["wall_s"]
    monkeypatch.setenv("MY_GAIN", "2")
    with pytest.raises(UserError, match=r"the environment: \$MY_GAIN has changed since"):
        train(settings(configure))
    monkeypatch.delenv("MY_GAIN")
    monkeypatch.setenv("MY_BIAS", "2")  # whose name stands in no call that reads it
    with pytest.raises(UserError, match=r"the environment: \$MY_BIAS has changed since"):
        train(settings(configure))
    with pytest.warns(UserWarning, match=r"\$MY_BIAS changed since mynet.py:net was trained"):
        sixfold.predict("run", "folder:set", out="scores.parquet", engine="inline")
