"""Weights of other programs: state dicts are read by name, and the rest is called by its name."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sixfold.core.errors import UserError
from sixfold.models.building import build
from sixfold.models.config import ModelConfig
from sixfold.training import torch_file
from sixfold.training.model_card import read_card
from sixfold.training.run import train
from sixfold.training.sparsity.initialization import read_weights


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit",))


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return buffer.getvalue()


def state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


SAVED: dict[str, Any] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"lr": 0.1}},
    "model": lambda s: {"model": s},
    "data parallel": lambda s: {"state_dict": {f"module.{n}": t for n, t in s.items()}},
    "compiled": lambda s: {f"_orig_mod.module.{n}": t for n, t in s.items()},
    "parameters": lambda s: {n: nn.Parameter(t) for n, t in s.items()},
}


@pytest.mark.parametrize("form", SAVED)
@pytest.mark.parametrize("zip_format", [True, False])
def test_state_dicts_are_read_by_name(tmp_path: Path, form: str, zip_format: bool) -> None:
    file = tmp_path / "old.pth"
    torch.save(SAVED[form](state()), file, _use_new_zipfile_serialization=zip_format)
    heard: list[str] = []
    found = read_weights(file, heard.append)
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())
    assert bool(heard) == (form not in ("plain", "parameters"))
    assert ("'module.' taken off" in "".join(heard)) == (form in ("data parallel", "compiled"))


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "an empty file"),
    "page": (lambda: b"<!DOCTYPE html><html>", "a page of HTML"),
    "keras": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file"),
    "keras 3": (lambda: zipped("config.json", "model.weights.h5"), "a network of Keras"),
    "zip": (lambda: zipped("a.txt"), "a zip archive"),
    "onnx": (lambda: b"\x08\x07\x12\x07pytorch" + bytes(90), "an ONNX network"),
    "cut zip": (lambda: zipped("x/data.pkl")[:-40], "a zip file that is damaged or cut off"),
    "cut safetensors": (
        lambda: (200).to_bytes(8, "little") + b'{"w":{',
        "a safetensors file that is damaged or cut off",
    ),
    "noise": (lambda: b"\xff" * 40, "no weights can be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_of_other_kinds_are_called_by_their_name(tmp_path: Path, case: str) -> None:
    make, what = WRONG[case]
    (tmp_path / "w").write_bytes(make())
    with pytest.raises(UserError, match=what) as error:
        read_weights(tmp_path / "w")
    assert len(error.value.problems) == len(str(error.value).splitlines()) == 1
    with pytest.raises(UserError, match="is damaged or was not written by Sixfold"):
        read_card(tmp_path / "w")


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it is a folder without model\.safetensors"):
        read_weights(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Bomb(), "Python objects besides tensors"),
        (nn.Linear(2, 2), "Python objects besides tensors .*Linear"),
        ({"epoch": 3}, "holds no state dict, of names and tensors, but dict with epoch"),
        ([torch.ones(2)], "holds no state dict, of names and tensors, but list"),
        ({}, "holds no state dict"),
        ({"w": torch.eye(3).to_sparse()}, "w is quantized, sparse or without values"),
    ],
)
def test_what_is_no_state_dict_is_refused_and_not_run(
    tmp_path: Path, value: object, reason: str
) -> None:
    file = tmp_path / "old.pth"
    torch.save(value, file)
    with pytest.raises(UserError, match=reason) as error:
        torch_file.load_state(file)
    assert len(str(error.value).splitlines()) == 1
    file.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"Python objects besides tensors|damaged PyTorch file"):
        torch_file.load_state(file)


def test_a_training_begins_with_them_and_a_prediction_says_what_to_do(
    tmp_path: Path, configure: Callable[..., Any]
) -> None:
    network = build(ModelConfig(model="slide"), shape=(3, 8, 8), classes=10, seed=7)
    file = tmp_path / "old.pth"
    torch.save({"state_dict": {f"module.{n}": t for n, t in network.state_dict().items()}}, file)
    heard: list[str] = []
    config = configure(weights=str(file), lr=1e-9, steps=1, out=str(tmp_path / "run"))
    train(config, on_event=lambda event: heard.append(str(event.get("text"))))
    assert any("'module.' taken off all names" in text for text in heard)
    found = read_weights(tmp_path / "run")
    assert all(torch.allclose(found[n], t, atol=1e-5) for n, t in network.state_dict().items())
    with pytest.raises(UserError, match="make a run of it by `sixfold train --model NAME --weig"):
        read_card(file)
