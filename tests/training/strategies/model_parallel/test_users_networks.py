"""Networks that users bring to a division: what works, and the one line for what does not."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.training.strategies.model_parallel.divided import deviation
from torch import Tensor, nn

from sixfold.core.errors import UserError
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.strategies.model_parallel.grid import Mesh

Configure = Callable[..., TrainConfig]

NETWORKS = """
import torch
from torch import nn

def scaled(module, inputs, output):
    return 2 * output

def seen(module, inputs):
    module.calls = 1

def hooked(kind="forward"):
    conv = nn.Conv2d(3, 4, 3, padding=1)
    if kind == "forward":
        conv.register_forward_hook(scaled)
    elif kind == "pre":
        conv.register_forward_pre_hook(seen)
    else:
        conv.register_full_backward_hook(lambda module, before, after: None)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))

class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.place = nn.Parameter(torch.zeros(1, 5, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.size(0), -1, -1), x], 1) + self.place
        return self.head(self.block(x)[:, 0])
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "users_nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("users_nets", None)


def divided(configure: Configure, **changes: Any) -> TrainConfig:
    usual = {"strategy": "model_parallel", "grid": "rows=2", "workers": 2, "steps": 2}
    return configure(**(usual | changes), out="run")


@pytest.mark.parametrize("kind", ["forward", "pre", "backward"])
def test_hooks_are_refused_in_one_line(configure: Configure, kind: str) -> None:
    with pytest.raises(UserError) as refused:
        train(divided(configure, model="users_nets:hooked", model_args=f"kind={kind}"))
    (line,) = refused.value.problems
    assert "hooks" in line
    assert "\n" not in line
    assert not Path("run").exists()


def test_a_vision_transformer_is_refused_in_one_line_and_trains_otherwise(
    configure: Configure,
) -> None:
    with pytest.raises(UserError) as refused:
        train(divided(configure, model="users_nets:ViT"))
    (line,) = refused.value.problems
    assert "\n" not in line
    assert len(line) < 500
    assert "remove" not in line  # a parameter that it needs
    assert not Path("run").exists()
    assert train(configure(model="users_nets:ViT", steps=2, out="run"))["steps"] == 2


class _Power(nn.Module):
    """Powers of either side."""

    def __init__(self, form: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.last = nn.Linear(3 * 6 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.form(self.conv(x)).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "form",
    [
        lambda x: 2**x,
        lambda x: x**2,
        lambda x: x.pow(3),
        lambda x: 0.5 ** (x * x),
        lambda x: 2.0 - x,
    ],
    ids=["2 ** x", "x ** 2", "x.pow(3)", "0.5 ** (x * x)", "2.0 - x"],
)
@pytest.mark.parametrize("mesh", [Mesh(rows=2), Mesh(cout=2), Mesh(cols=2, cin=2)], ids=str)
def test_a_power_of_a_number_is_divided(form: Callable[[Tensor], Tensor], mesh: Mesh) -> None:
    assert deviation(_Power(form), (2, 6, 6), mesh, samples=3) < 1e-9
