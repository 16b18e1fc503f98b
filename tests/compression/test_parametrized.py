"""Parametrizations whose tensors depend on values are refused by a compression in one line."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.marks import quick

from sixfold.compression.config import CompressConfig, CompressionConfig
from sixfold.compression.run import compress
from sixfold.core.errors import UserError
from sixfold.distributed.config import EngineConfig
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

NETWORK = """
from torch import nn
from torch.nn.utils import parametrizations as p

def net(kind="orthogonal"):
    layer = nn.Linear(192, 16)
    layer = {
        "orthogonal": p.orthogonal, "spectral": p.spectral_norm, "weight": p.weight_norm,
    }[kind](layer)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(16, 10))
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "parametrized_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("parametrized_net", None)


@pytest.mark.parametrize("kind", quick(["orthogonal", "spectral", "weight"], "orthogonal"))
def test_compression_of_a_parametrized_network(
    configure: Callable[..., TrainConfig], kind: str
) -> None:
    train(configure(model="parametrized_net:net", model_args=f"kind={kind}", steps=2, out="run"))
    config = CompressConfig(
        compression=CompressionConfig(
            run="run", out="small", sparsity="0.5", rounds=1, prune_epochs=0.2, share_epochs=0.2
        ),
        engine=EngineConfig(engine="inline", workers=1),
    )
    try:
        assert compress(config)["stages"]
    except UserError as error:
        told = error.problems
    else:
        return
    (line,) = told
    assert "\n" not in line
    assert "parametriz" in line
    assert kind == "orthogonal"
    assert not Path("small").exists()
