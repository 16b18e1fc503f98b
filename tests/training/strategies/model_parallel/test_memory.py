"""No rank holds the whole network: memory is measured, and limited."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import RankRaisedError
from sixfold.distributed.engines.local import LocalEngine
from sixfold.distributed.session import PRELOAD
from sixfold.training.config import TrainConfig

Configure = Callable[..., TrainConfig]

WIDE = """
from torch import nn


def network(shape, classes):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape[0] * shape[1] * shape[2], 8192),
        nn.ReLU(),
        nn.Linear(8192, 1024),
        nn.ReLU(),
        nn.Linear(1024, classes),
    )
"""
WEIGHTS_MIB = 56
"""Of 14.7 million weights in float32."""

ROOM_MIB = 220
"""What a rank may take beyond what it has when it starts: less than four copies of the weights.
Serial training needs five: weights, velocity, a shard's gradient, their sum, and one more while
the weights are built."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits data")


def train_limited(config: TrainConfig, room_mib: int | None, comm: Any) -> dict[str, float]:
    """Two steps; how much memory that took at most, in MiB beyond the beginning."""
    import resource

    from sixfold import data as datasets
    from sixfold.training.strategies.registry import build_strategy

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    if room_mib is not None:
        limit = int((status("VmData") + room_mib) * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmHWM")
    strategy = build_strategy(comm, config, datasets.open_data(config.data))
    shards = strategy.shards(0)
    losses = [strategy.train_step(number, shards, 0.01).loss for number in range(2)]
    return {"loss": losses[-1], "peak": status("VmHWM") - before}


@pytest.fixture
def run(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[dict[str, float]]]:
    """Trains the wide network on ranks of their own, each with so much room."""
    (tmp_path / "wide.py").write_text(WIDE)
    monkeypatch.chdir(tmp_path)

    def train_on(workers: int, room_mib: int | None, **settings: Any) -> list[dict[str, float]]:
        config = configure(
            model="wide:network",
            data="synthetic:16x3x16x16",
            batch_size=8,
            steps=2,
            workers=workers,
            **settings,
        )
        with LocalEngine(preload=PRELOAD) as engine:
            task = functools.partial(train_limited, config, room_mib)
            results: list[dict[str, float]] = engine.run_ranks(task, workers).results
        return results

    return train_on


@pytest.mark.full
def test_a_network_too_large_for_one_rank_trains_on_four(
    run: Callable[..., list[dict[str, float]]],
) -> None:
    with pytest.raises(RankRaisedError, match=r"allocate memory|MemoryError"):
        run(1, ROOM_MIB)
    divided = run(4, ROOM_MIB, strategy="model_parallel", grid="cout=2,cin=2")
    whole = run(1, None)
    for found in divided:
        assert found["loss"] == pytest.approx(whole[0]["loss"], rel=1e-5)
        assert found["peak"] < whole[0]["peak"] / 2
    assert whole[0]["peak"] > 3 * WEIGHTS_MIB
