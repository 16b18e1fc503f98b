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
from sixfold.core.run_directory import as_json
from sixfold.core.tensor_file import pack
from sixfold.models import check_origin
from sixfold.training.command import images_of
from sixfold.training.config import TrainConfig

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
           "origin_net:make.__class__", "__main__:main",
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


HOSTILE: dict[str, dict[str, object]] = {
    "model": {"model": {"model": "os:system", "model_args": "command=touch ran"}},
    "model that came along": {"model": {"model": "stranger/origin_evil.py:ran"}},
    "strategy": {"strategy": {"strategy": "stranger/origin_evil.py:ran"}},
    "varied": {"sweep": {"vary": ["model=os:system,lenet5", "strategy=os:x"]}},
    "spark's settings": {"engine": {"engine": "spark", "spark_conf": ["spark.jars=/x.jar"]}},
    "spark's master": {"engine": {"engine": "spark", "master": "spark://stranger:7077"}},
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, project: Path) -> tuple[str, Path]:
    """A stranger's run directory in the project, and what is wrong with it."""
    run = project / "stranger" / "run"
    run.mkdir()
    code = project / "stranger" / "origin_evil.py"
    code.write_text(code.read_text() + "\nopen('ran', 'w')\n")
    defaults = as_json(TrainConfig())
    defaults["data"]["data"] = "file:/nowhere"
    asked = {**defaults, "run": {"trust_model": True}, **HOSTILE[request.param]}
    (run / "config.json").write_text(json.dumps(asked))
    return request.param, run


@pytest.mark.parametrize(
    "command", ["train", "tickets", "sweep quality --vary seed=1,2", "sweep time", "Python"]
)
def test_a_run_that_is_resumed_names_no_code(
    hostile: tuple[str, Path], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    what, run = hostile
    said = ""
    if command == "Python":
        try:
            sixfold.configure(out=run, resume=True)
        except UserError as error:
            said = str(error)
    else:
        assert main([*command.split(), "--resume", "--out", str(run)]) == 2
        said = capsys.readouterr().err
    lacks = {"varied": ["train", "tickets", "sweep quality --vary seed=1,2", "Python"],
             "strategy": ["tickets"]}  # fmt: skip
    if command not in lacks.get(what, []):
        assert "config.json names " in said
        assert "--trust-model" in said
    assert "Traceback" not in said
    assert not Path("ran").exists()


@pytest.mark.parametrize("command", ["profile", "report", "compress", "evaluate", "predict"])
def test_other_commands_run_nothing_of_a_run_directory(
    hostile: tuple[str, Path], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(hostile[1])]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("ran").exists()


def test_what_the_user_gives_is_used(project: Path) -> None:
    run = project / "stranger" / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"model": {"model": "torch.nn:Linear"}}))
    given = "stranger/origin_evil.py:Net"
    asked = sixfold.configure(out=run, resume=True, model=given)
    assert asked.model.model == given
    trusted = sixfold.configure(out=run, resume=True, trust_model=True)
    assert trusted.model.model == "torch.nn:Linear"


@pytest.mark.parametrize("setting", ["spark.executor.memory=2g", "spark.speculation=false"])
def test_numbers_of_a_run_on_spark_need_not_be_given_again(project: Path, setting: str) -> None:
    kept = {"engine": {"engine": "spark", "master": "local[2]", "spark_conf": [setting]}}
    (project / "config.json").write_text(json.dumps(kept))
    asked = sixfold.configure(out=project, resume=True)
    assert asked.engine.spark_conf == (setting,)


def test_a_page_opens_no_url(project: Path) -> None:
    assert images_of({"data": {"data": "folder:http://127.0.0.1:1/set"}}) is None
