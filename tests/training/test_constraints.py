"""A constraint on weights, written as the refusal advises, learns and holds, whoever computes."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sixfold.core.errors import UserError
from sixfold.training.config import TrainConfig
from sixfold.training.model_card import load_network
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

NETWORK = """
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

BOUND = 0.05

class Wrong(nn.Linear):
    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, BOUND)
        return super().forward(x)

class Bounded(nn.Linear):
    def forward(self, x):
        return F.linear(x, torch.renorm(self.weight, 2, 0, BOUND), self.bias)

class MaxNorm(nn.Module):
    def forward(self, weight):
        return torch.renorm(weight, 2, 0, BOUND)

def net(kind="bounded"):
    last = {"wrong": Wrong, "bounded": Bounded, "parametrized": nn.Linear}[kind](192, 10)
    if kind == "parametrized":
        parametrize.register_parametrization(last, "weight", MaxNorm())
    return nn.Sequential(nn.Flatten(), last)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "maxnorm_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("maxnorm_net", None)


@pytest.mark.parametrize("kind", ["bounded", "parametrized"])
def test_the_remedy_for_max_norm_learns_and_holds(configure: Configure, kind: str) -> None:
    settings = {"model": "maxnorm_net:net", "steps": 12, "lr": 0.5}
    found = [
        train(configure(model_args=f"kind={kind}", workers=n, out=f"run{n}", **settings))
        for n in (1, 2)
    ]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
    begun = train(configure(model_args=f"kind={kind}", out="run0", **{**settings, "lr": 0.0}))
    assert begun["weights_sha256"] != found[0]["weights_sha256"]
    network, _ = load_network(Path("run1", "model.safetensors"), trusted="maxnorm_net:net")
    first, _ = load_network(Path("run0", "model.safetensors"), trusted="maxnorm_net:net")
    x = torch.eye(192).view(192, 1, 1, 192)
    with torch.no_grad():
        used, before = (made(x) - made(torch.zeros(1, 1, 1, 192)) for made in (network, first))
    assert (used.norm(dim=0) <= 0.05 * 1.001).all()
    assert (used - before).abs().max() > 1e-3


def test_the_constraint_that_rebinds_a_weight_is_refused_with_the_remedy(
    configure: Configure,
) -> None:
    with pytest.raises(UserError, match=r"changes the parameter .* F.linear\(x, torch.renorm\("):
        train(configure(model="maxnorm_net:net", model_args="kind=wrong", out="run"))
