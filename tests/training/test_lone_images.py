"""A training that would meet a shard of one image, of which there are no statistics."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.training.config import configure
from sixfold.training.run import train

CODE = """
from torch import nn

class Norm(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

class Point(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Conv2d(1, 8, 8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, classes))

class Map(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Conv2d(1, 2, 7), nn.BatchNorm2d(2), nn.InstanceNorm2d(2),
                         nn.Flatten(), nn.Linear(8, classes))

class Hand(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    def forward(self, x):
        y = self.layers(x)
        return (y - y.mean(0)) / (y.std(0) + 1e-5) if self.training else y
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "lone_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("lone_net", None)


def trained(net: str, **settings: object) -> None:
    asked = {
        "engine": "inline",
        "workers": 1,
        "epochs": 1,
        "data": "synthetic:20x1x8x8",
        **settings,
    }
    train(configure(model=f"lone_net:{net}", out="run", **asked))


# 20 images are there to learn from.
REFUSED = [
    ("Norm", {"batch_size": 19}, r"20 = 1 x 19 \+ 1", "--batch-size 18"),
    ("Point", {"batch_size": 19, "strategy": "hogwild", "workers": 2}, "1 x 19", "--batch-size 18"),
    ("Norm", {"batch_size": 1, "steps": 2, "epochs": None},
     "a step has a single", "--batch-size 2"),
    ("Norm", {"batch_size": 4, "shards": 4}, "4 logical shards", "--shards 2"),
    ("Norm", {"batch_size": 19, "batch_norm": "sync"}, "single image", "--batch-size 18"),
    ("Norm", {"batch_size": 4, "workers": 3, "strategy": "local_sgd"}, "worker 0 of 3", "--batch"),
    ("Hand", {"batch_size": 18}, "2 images in 2 logical shards", "--batch-size 16"),
]  # fmt: skip
TRAINED = [
    ("Norm", {"batch_size": 19, "epochs": None, "steps": 1}),
    ("Norm", {"batch_size": 20}),
    ("Norm", {"batch_size": 4, "shards": 4, "batch_norm": "sync"}),
    ("Map", {"batch_size": 19}),
    ("Map", {"batch_size": 1}),
]


@pytest.mark.parametrize(("net", "settings", "arithmetic", "remedy"), REFUSED)
def test_it_is_refused_before_the_start(
    net: str, settings: dict[str, object], arithmetic: str, remedy: str
) -> None:
    with pytest.raises(UserError, match=arithmetic) as caught:
        trained(net, **settings)
    assert len(caught.value.problems) == 1
    assert f"give {remedy}" in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize(("net", "settings"), TRAINED)
def test_where_no_shard_is_that_small_it_trains(net: str, settings: dict[str, object]) -> None:
    trained(net, **settings)


@pytest.mark.parametrize(
    ("net", "settings"), [(net, kept) for net, kept, _, remedy in REFUSED[:4] if remedy]
)
def test_the_remedy_works(net: str, settings: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        trained(net, **settings)
    name, value = str(caught.value).rpartition("give --")[2].split()
    trained(net, **{**settings, name.replace("-", "_"): int(value)})
