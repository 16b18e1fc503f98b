"""Misfits between a network and the data, explained before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sixfold.models import check
from sixfold.models.config import ModelConfig

Write = Callable[..., Path]

HEAD = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.body = nn.Sequential(*layers)
    def forward(self, x): return self.body(x)
"""
MISFITS = {
    "the channels": (
        "Net(nn.Conv2d(1, 4, 3))",
        "layer 'body.0' (Conv2d 1->4, kernel 3x3) takes 1 channels, but would get 3 (3x8x8)",
    ),
    "the map is too small": (
        "Net(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, (5, 3)))",
        "layer 'body.1' (Conv2d 4->6, kernel 5x3) would get a 4x4 map",
    ),
    "the pool": (
        "Net(nn.MaxPool2d(16))",
        "layer 'body.0' (MaxPool2d 16x16) would get a 8x8 map",
    ),
    "features of the linear layer": (
        "Net(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 5))",
        "layer 'body.3' (Linear 100->5) takes 100 features, but would get 144, the 4x6x6 that "
        "'body.1' gives",
    ),
    "a flatten is missing": (
        "Net(nn.Linear(100, 5))",
        "layer 'body.0' (Linear 100->5) takes 100 features, but would get 8, the last dim of "
        "3x8x8: flatten it before",
    ),
    "a flatten too many": (
        "Net(nn.Flatten(), nn.Conv2d(3, 4, 3))",
        "layer 'body.1' (Conv2d 3->4, kernel 3x3) takes maps CxHxW, but would get 192",
    ),
    "batch-norm": (
        "Net(nn.BatchNorm2d(4))",
        "layer 'body.0' (BatchNorm2d 4) takes 4 channels, but would get 3 (3x8x8)",
    ),
}
OUTPUTS = {
    "too many classes": (
        "Net(nn.Flatten(), nn.Linear(192, 1000))",
        "its output for a batch of 2 is 2x1000, not a tensor of 2x5 (batch x classes): the data "
        "has 5 classes, so its last layer 'body.1' (Linear 192->1000) must give 5",
    ),
    "spare dims": (
        "Net(nn.Conv2d(3, 5, 8))",
        "its output for a batch of 2 is 2x5x1x1, not a tensor of 2x5 (batch x classes): end it "
        "with nn.Flatten()",
    ),
    "maps": (
        "Net(nn.Conv2d(3, 5, 3))",
        "its output for a batch of 2 is 2x5x6x6, not a tensor of 2x5 (batch x classes): average",
    ),
    "a sequence": (
        "Net(nn.Flatten(2), nn.Linear(64, 7))",
        "its output for a batch of 2 is 2x3x7, not a tensor of 2x5 (batch x classes)",
    ),
    "a number": (
        "Net(nn.Flatten(), Call(lambda x: x.sum()))",
        "its output for a batch of 2 is a single number, not a tensor of 2x5",
    ),
    "the batch is lost for one image": (
        "Net(nn.Flatten(), nn.Linear(192, 5), Call(lambda x: x.squeeze()))",
        "its output for a batch of 1 is 5, not a tensor of 1x5 (batch x classes): keep dim 0",
    ),
    "the batch is mixed up": (
        "Net(Call(lambda x: x.view(-1, 96)), nn.Linear(96, 5))",
        "its output for a batch of 2 is 4x5, not a tensor of 2x5 (batch x classes): keep dim 0",
    ),
    "labels": (
        "Net(nn.Flatten(), Call(lambda x: x.argmax(1)))",
        "its output in training is of type torch.int64, not floating-point logits",
    ),
    "no parameters": (
        "Net(nn.Flatten(), Call(lambda x: x[:, :5]))",
        "the network has no parameters to train",
    ),
}
CALL = """
class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
    def forward(self, x): return self.function(x)
"""


def problem(write: Write, network: str) -> str:
    write("mine.py", f"{HEAD}{CALL}def make():\n    return {network}\n")
    (line,) = check(ModelConfig(model="mine:make"), shape=(3, 8, 8), classes=5)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("case", MISFITS)
def test_the_layer_that_does_not_fit_is_named(write: Write, case: str) -> None:
    network, explanation = MISFITS[case]
    assert problem(write, network) == f"mine:make cannot take 3x8x8 images: {explanation}"


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_of_the_wrong_kind_is_described(write: Write, case: str) -> None:
    network, explanation = OUTPUTS[case]
    assert problem(write, network).startswith(f"mine:make: {explanation}")


def test_failures_in_a_users_forward_come_with_file_and_line(write: Write) -> None:
    said = problem(write, "Net(nn.Conv2d(3, 4, 3), Call(lambda x: x.view(-1, 100)))")
    assert "layer 'body.1' (Call) given 4x6x6: RuntimeError: shape '[-1, 100]' is invalid" in said
    assert said.endswith("(mine.py line 16)")


def test_errors_caught_inside_a_network_do_not_confuse_the_chain(write: Write) -> None:
    code = """
class Tries(nn.Module):
    def __init__(self):
        super().__init__()
        self.bad, self.good, self.last = nn.Linear(7, 5), nn.Linear(192, 5), nn.Linear(9, 5)
    def forward(self, x):
        try: x = self.bad(x.flatten(1))
        except RuntimeError: x = self.good(x.flatten(1))
        return self.last(x)
def make(): return Net(Tries())
"""
    write("tries.py", HEAD + code)
    (line,) = check(ModelConfig(model="tries:make"), shape=(3, 8, 8), classes=5)
    assert "layer 'body.0.last' (Linear 9->5) takes 9 features, but would get 5" in line


@pytest.mark.parametrize(
    "network",
    [
        "nn.Sequential(nn.Flatten(), nn.Linear(192, 5))",
        "Net(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))",
        "Net(nn.Flatten(), nn.Linear(192, 5)).double()",
        "Net(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(0.5), nn.Linear(192, 5))",
        # What only works with values:
        "Net(nn.Flatten(), nn.Linear(192, 5), Call(lambda x: x * float(x.abs().max() >= 0)))",
        "Net(nn.Flatten(), nn.Linear(192, int(torch.tensor(5).item())))",
        "Net(Call(lambda x: x.flatten(1) + torch.zeros(192, device='cpu')), nn.Linear(192, 5))",
        "Net(nn.Flatten(), Call(lambda x: torch.from_numpy(x.numpy() + 1)), nn.Linear(192, 5))",
    ],
)
def test_good_networks_have_no_problems(write: Write, network: str) -> None:
    write("mine.py", f"{HEAD}{CALL}def make():\n    return {network}\n")
    assert check(ModelConfig(model="mine:make"), shape=(3, 8, 8), classes=5) == []


def test_problems_of_names_and_arguments_are_returned() -> None:
    config = ModelConfig(model="lenet6", model_args="a")
    assert len(check(config, shape=(1, 28, 28), classes=10)) == 2
    config = ModelConfig(model="resnet20", model_args="depth=5")
    assert check(config, shape=(1, 28, 28), classes=10)[0].startswith("resnet20: depth=5 must be")


def test_lenet5_on_digits_is_explained_with_the_remedy() -> None:
    assert check(ModelConfig(model="lenet5"), shape=(1, 8, 8), classes=10) == [
        "lenet5 cannot take 1x8x8 images: layer 'features.2' (Conv2d 20->50, kernel 5x5) would "
        "get a 2x2 map; images of at least 16x16 are needed: use --resize 28"
    ]


def test_arguments_out_of_range_bring_no_advice_on_sizes() -> None:
    (line,) = check(ModelConfig(model="alexnet", model_args="groups=3"), shape=(3, 8, 8), classes=2)
    assert line == "alexnet: groups=3 must be 1, 2, 4, 8, 16 or 32"


def test_random_state_is_untouched() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check(ModelConfig(model="alexnet"), shape=(3, 64, 64), classes=2)
    assert torch.equal(torch.rand(2), expected)


def test_a_network_of_ones_own_is_told_a_size_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fixed_size.py").write_text(
        "from torch import nn\n"
        "def network(num_classes):\n"
        "    layers = nn.Conv2d(1, 4, 5), nn.Flatten(), nn.Linear(4 * 28 * 28, num_classes)\n"
        "    return nn.Sequential(*layers)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (problem,) = check(ModelConfig(model="fixed_size:network"), shape=(1, 8, 8), classes=10)
    assert problem.endswith("; it takes 32x32: use --resize 32")
