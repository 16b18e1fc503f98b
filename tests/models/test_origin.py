"""A file's network is run only if it is the zoo's or the user's own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sixfold
from sixfold.cli import main
from sixfold.compression.codec import container
from sixfold.core.errors import UserError
from sixfold.core.tensor_file import pack
from sixfold.models import check_origin

CODE = """
import functools, os, subprocess
from os import system
from subprocess import Popen, run
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Flatten(), nn.Linear(4, classes))

    @classmethod
    def made(cls, classes):
        return cls(classes)

def make(classes):
    return Net(classes)

part = functools.partial(Net, 2)
cached = functools.lru_cache(make)
evil = functools.partial(subprocess.run, "true")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the user's code, which is the current one."""
    folder = tmp_path / "project"
    for file in ("origin_net.py", "nets/origin_deep.py", "stranger/origin_evil.py"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(CODE)
    (tmp_path / "origin_out.py").write_text(CODE)
    monkeypatch.chdir(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith(("origin_", "nets", "stranger"))]:
        del sys.modules[name]


OWN = ["lenet5", "unknown", "origin_net:Net", "origin_net:make", "origin_net:Net.made",
       "origin_net:part", "origin_net:cached", "nets/origin_deep.py:Net", "nets.origin_deep:Net",
       "origin_net.py:make"]  # fmt: skip
FOREIGN = ["os:system", "builtins:exec", "subprocess:run", "torch.nn:Linear", "torch:load",
           "torch.hub:load", "numpy:load", "pickle:loads", "sixfold.cli:main",
           "origin_net:system", "origin_net:os.system", "origin_net:run", "origin_net:Popen",
           "origin_net:nn.Linear", "origin_net:evil", "origin_net:Net.__init__.__globals__",
           "../origin_out.py:Net", "stranger/origin_evil.py:Net", "stranger.origin_evil:Net",
           "no_such_module:Net", "os.path:join", "a b:c"]  # fmt: skip


@pytest.mark.parametrize("model", OWN)
def test_the_zoo_and_the_users_own_code_are_used(project: Path, model: str) -> None:
    check_origin(model, project / "runs" / "one" / "model.safetensors")


@pytest.mark.parametrize("model", FOREIGN)
def test_other_code_is_refused(project: Path, model: str) -> None:
    with pytest.raises(UserError) as caught:
        check_origin(model, project / "stranger" / "run" / "model.safetensors")
    assert len(caught.value.problems) == 1
    assert "origin_evil" not in sys.modules
    assert "origin_out" not in sys.modules


def card(model: str, model_args: str = "") -> dict[str, object]:
    return {"model": model, "model_args": model_args, "precision": "float32", "shape": [1, 2, 2],
            "classes": ["a", "b"], "mean": [0.5], "std": [0.5]}  # fmt: skip


@pytest.fixture(params=["model.safetensors", "model.sixz"])
def weights(request: pytest.FixtureRequest, project: Path) -> Path:
    """A file whose card runs a command."""
    path = project / "runs" / str(request.param)
    path.parent.mkdir()
    made = card("os:system", f"command=touch {project}/ran")
    tensors = {"1.weight": torch.zeros(2, 4), "1.bias": torch.zeros(2)}
    if path.suffix == ".sixz":
        path.write_bytes(container.to_bytes({"card": made}, tensors, "fixed")[0])
    else:
        path.write_bytes(pack(tensors, {"sixfold": json.dumps(made)}))
    return path


@pytest.mark.parametrize(
    "command",
    ["predict {} --data digits --out scores.parquet", "evaluate {} --data digits",
     "compress {} --data digits", "sparse {}"],
)  # fmt: skip
def test_no_command_runs_what_a_file_names(
    weights: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("compress") and weights.suffix == ".sixz":
        pytest.skip("is refused as compressed already")
    assert main(command.format(weights).split()) == 2
    said = capsys.readouterr().err
    assert "names the network os:system, which is no code of the project" in said
    assert "--trust-model" in said
    assert "Traceback" not in said
    assert not Path("ran").exists()


def test_loading_needs_a_word_for_other_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project / "model.safetensors"
    tensors = {"1.weight": torch.ones(2, 4), "1.bias": torch.zeros(2)}
    path.write_bytes(pack(tensors, {"sixfold": json.dumps(card("origin_net:Net"))}))
    images = torch.ones(1, 1, 2, 2)
    assert sixfold.load(path)(images).shape == (1, 2)
    monkeypatch.chdir(project.parent)
    monkeypatch.syspath_prepend(str(project))
    with pytest.raises(UserError, match="may have come with it"):
        sixfold.load(path)
    assert sixfold.load(path, trust_model=True)(images).shape == (1, 2)
