"""Synchronous training has the bits of serial training, in many cases and on every engine.

`test_every_strategy.py` holds the other strategies to their promises. A new Spark master is tested
by a row in `SPARK`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.marks import quick

from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

SPARK = ["spark_local", "spark_cluster", "spark_standalone"]
"""Fixtures: a Spark engine each, on one JVM, on two executors, on a real standalone cluster."""

NORMED: dict[str, Any] = {"model": "resnet20", "model_args": "depth=8", "batch_size": 70}
PLAIN: dict[str, dict[str, Any]] = {
    "batch 7": {"batch_size": 7, "steps": 20, "data": "synthetic:50x3x8x8"},
    "batch 10": {"batch_size": 10, "steps": 8, "data": "synthetic:64x3x8x8"},
    "batch 100": {"batch_size": 100, "steps": 6, "data": "synthetic:230x3x8x8"},
    "batch 1000": {"batch_size": 1000, "steps": 3, "data": "synthetic:1030x3x8x8"},
}
DEMANDING: dict[str, dict[str, Any]] = {
    "augmentation": {"augment": "crop:2,flip", "batch_size": 50},
    "every augmentation": {
        "augment": "resized-crop,flip,rotate,color-jitter,randaugment,erase,mixup,cutmix",
        "batch_size": 50,
        "micro_batch": "5",
    },
    "dropout in the user's network": {"model": "dropping:network", "batch_size": 50},
    "the user's residual network": {"model": "dropping:Residual", "batch_size": 70, "steps": 3},
    "batch-norm of shards": NORMED | {"steps": 3},
    "batch-norm of the batch": NORMED | {"steps": 2, "batch_norm": "sync"},
    "adam in float64": {"optimizer": "adam", "precision": "float64", "lr": 0.001},
    "given shards": {"shards": 8, "batch_size": 33},
}
CASES = PLAIN | DEMANDING

OWN_NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 8, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(16 * (shape[1] // 2) * (shape[2] // 2), classes)

    def forward(self, x):
        x = F.relu(self.conv(x))
        x = torch.cat((x, F.relu(x + self.block(x))), dim=1)
        x = self.pool(F.relu(x))
        x = F.dropout(self.drop(x.view(x.size(0), -1)), 0.2, self.training)
        return self.fc(x)


def network(shape, classes):
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8 * (shape[1] - 2) * (shape[2] - 2), classes),
    )
"""


@pytest.fixture(autouse=True, scope="module")
def own_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A user's own network in a file in the current directory."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "dropping.py").write_text(OWN_NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def serial(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[TrainConfig, str], dict[str, Any]]:
    """The same training on one worker, inline; computed once a case."""
    found: dict[str, dict[str, Any]] = {}

    def run(config: TrainConfig, case: str) -> dict[str, Any]:
        if case not in found:
            found[case] = train(config)
        return found[case]

    return run


def check(
    configure: Configure,
    engine: Engine,
    serial: Callable[[TrainConfig, str], dict[str, Any]],
    folder: Path,
    case: str,
    workers: int,
    **more: Any,
) -> None:
    """Train and compare with the serial run, bit for bit."""
    settings = CASES[case]
    expected = serial(configure(out=str(folder / "serial"), **settings), case)
    found = train(
        configure(out=str(folder / "run"), workers=workers, engine=engine.name, **settings, **more),
        engine=engine,
    )
    for name in ("weights_sha256", "test_loss", "test_accuracy", "steps"):
        assert found[name] == expected[name], name
    assert found["workers"] == workers


@pytest.mark.parametrize("workers", quick([2, 3, 4], 3))
@pytest.mark.parametrize("case", CASES)
def test_inline_has_the_bits_of_one_worker(
    configure: Configure,
    engine_named: Callable[[str], Engine],
    serial: Callable[[TrainConfig, str], dict[str, Any]],
    tmp_path: Path,
    case: str,
    workers: int,
) -> None:
    check(configure, engine_named("inline"), serial, tmp_path, case, workers)


@pytest.mark.parametrize(
    ("case", "workers"),
    [
        ("batch 10", 4),
        ("batch 100", 2),
        ("dropout in the user's network", 2),
        ("the user's residual network", 3),
        ("batch-norm of the batch", 2),
    ],
)
def test_local_has_the_bits_of_one_worker(
    configure: Configure,
    engine_named: Callable[[str], Engine],
    serial: Callable[[TrainConfig, str], dict[str, Any]],
    tmp_path: Path,
    case: str,
    workers: int,
) -> None:
    check(configure, engine_named("local"), serial, tmp_path, case, workers)


@pytest.mark.spark
@pytest.mark.parametrize(
    "case", ["batch 10", pytest.param("batch-norm of the batch", marks=pytest.mark.full)]
)
@pytest.mark.parametrize("master", quick(SPARK, "spark_local"))
def test_spark_has_the_bits_of_one_worker(
    configure: Configure,
    request: pytest.FixtureRequest,
    serial: Callable[[TrainConfig, str], dict[str, Any]],
    tmp_path: Path,
    master: str,
    case: str,
) -> None:
    check(configure, request.getfixturevalue(master), serial, tmp_path, case, 2)


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize("workers", [2])
@pytest.mark.parametrize("case", [case for case in CASES if "user's" not in case])
@pytest.mark.parametrize("master", SPARK)
def test_spark_has_the_bits_of_one_worker_in_every_case(
    configure: Configure,
    request: pytest.FixtureRequest,
    serial: Callable[[TrainConfig, str], dict[str, Any]],
    tmp_path: Path,
    master: str,
    case: str,
    workers: int,
) -> None:
    check(configure, request.getfixturevalue(master), serial, tmp_path, case, workers)


@pytest.mark.full
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_local_has_the_bits_of_one_worker_in_every_case(
    configure: Configure,
    engine_named: Callable[[str], Engine],
    serial: Callable[[TrainConfig, str], dict[str, Any]],
    tmp_path: Path,
    case: str,
    workers: int,
) -> None:
    check(configure, engine_named("local"), serial, tmp_path, case, workers)
