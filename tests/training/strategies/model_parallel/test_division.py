"""A division for each layer: written, read, refused, and equal to the undivided network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.strategies.model_parallel.divided import deviation
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.errors import UserError
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.strategies.model_parallel.division import INPUTS, OUTPUTS, read_division
from sixfold.training.strategies.model_parallel.grid import Mesh

Configure = Callable[..., TrainConfig]


class Net(nn.Module):
    """Convolutions of several kinds, norms, a sum, a concatenation, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 6, 5, padding=2)
        self.right = nn.Conv2d(6, 4, 1, groups=2)
        self.after = nn.BatchNorm2d(10)
        self.last = nn.Conv2d(10, 5, 3, stride=2)
        self.hidden = nn.Linear(5 * 5 * 4, 7)
        self.out = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = torch.cat([functional.relu(x + self.left(x)), self.right(x)], 1)
        x = self.last(functional.max_pool2d(self.after(x), 3, 1, 1))
        return self.out(functional.relu(self.hidden(x.flatten(1))))  # type: ignore[no-any-return]


def meshes(size: int) -> list[Mesh]:
    axes = ("rows", "cols", "cout", "cin")
    found = [Mesh(**{axis: size}) for axis in axes]
    if size == 4:
        found += [Mesh(rows=2, cols=2), Mesh(rows=2, cin=2), Mesh(cout=2, cin=2)]
    return found


CONVS, LINEARS = ("stem", "left", "right", "last"), ("hidden", "out")


@settings(derandomize=True)
@given(data=st.data())
def test_any_division_of_each_layer_is_the_network(data: st.DataObject) -> None:
    torch.manual_seed(0)
    known = meshes(data.draw(st.sampled_from([2, 3, 4])))
    ways: list[tuple[str, Mesh | str]] = [
        (name, data.draw(st.sampled_from(known))) for name in CONVS
    ]
    ways += [(name, data.draw(st.sampled_from([INPUTS, OUTPUTS]))) for name in LINEARS]
    assert deviation(Net(), (3, 11, 9), known[0], layers=tuple(ways)) < 1e-10


def test_a_file_and_a_line_are_the_same_division(tmp_path: Path) -> None:
    division, problems = read_division("batch=2,rows=2; a.0:cout=2 ;b:outputs")
    assert problems == []
    assert division is not None
    (tmp_path / "one.json").write_text(json.dumps(division.file()))
    (tmp_path / "one.toml").write_text(
        'grid = "batch=2,rows=2"\n[layers]\n"a.0" = "cout=2"\nb = "outputs"\n'
    )
    for name in ("one.json", "one.toml"):
        assert read_division(str(tmp_path / name)) == (division, [])
    assert read_division(str(division)) == (division, [])


WRONG = {
    "no.json": "[layers",
    "list.json": "[1]",
    "keys.json": '{"grid": 2, "layers": {"a": 3, "b": "cout=3", "c": "diagonal"}, "color": 1}',
}


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("none.toml", ["No such file"]),
        ("no.json", ["is no JSON"]),
        ("list.json", ["is no table"]),
        ("keys.json", ["'color'", "grid is 2", "'a' has 3", "'b' has cout=3, of 3", "'c'"]),
    ],
)
def test_all_that_is_wrong_with_a_file_is_told_at_once(
    tmp_path: Path, name: str, texts: list[str]
) -> None:
    if name in WRONG:
        (tmp_path / name).write_text(WRONG[name])
    division, problems = read_division(str(tmp_path / name))
    assert division is None
    assert len(problems) == len(texts)
    for text in texts:
        assert any(text in line for line in problems), text


def test_layers_that_are_not_there_or_cannot_are_refused_before_anything_is_started(
    configure: Configure, tmp_path: Path
) -> None:
    ways = "rows=2;features.0:outputs;classifier.1:cout=2;features.9:cout=2"
    settings = {"strategy": "model_parallel", "workers": 2, "out": str(tmp_path / "run")}
    with pytest.raises(UserError) as refused:
        train(configure(grid=ways, model="slide", **settings))
    text = "\n".join(refused.value.problems)
    assert len(refused.value.problems) == 3
    for part in ("'features.9' is no convolution", "'features.0' is a Conv2d", "takes inputs or"):
        assert part in text
    assert not (tmp_path / "run").exists()


def test_training_with_a_file_is_serial_training_and_the_run_keeps_the_division(
    configure: Configure, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    shared: dict[str, Any] = {
        "model": "cells",
        "data": "synthetic:20x1x80x80",
        "batch_size": 10,
        "steps": 3,
        "precision": "float64",
    }
    file = tmp_path / "way.toml"
    file.write_text(
        'grid = "rows=2"\n[layers]\n"features.3" = "cout=2"\n"features.6" = "cin=2"\n'
        '"classifier.1" = "outputs"\n'
    )
    train(configure(out=str(tmp_path / "serial"), **shared))
    divided = {"strategy": "model_parallel", "workers": 2}
    found = train(configure(out=str(tmp_path / "run"), grid=str(file), **divided, **shared))
    kept = tmp_path / "run" / "division.json"
    file.unlink()
    again = train(configure(out=str(tmp_path / "again"), grid=str(kept), **divided, **shared))
    assert again["weights_sha256"] == found["weights_sha256"]
    assert found["grid"] == "rows=2;features.3:cout=2;features.6:cin=2;classifier.1:outputs"
    serial, weights = (
        load_file(tmp_path / name / "model.safetensors") for name in ("serial", "run")
    )
    for name, value in weights.items():
        assert float((value - serial[name]).abs().max()) < 1e-10, name
