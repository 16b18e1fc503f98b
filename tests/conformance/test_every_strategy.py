"""Every strategy on every engine, held to what it promises.

A new strategy is tested by a row in `PROMISES`, a new engine by one in `ENGINES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.strategies.registry import STRATEGIES

Configure = Callable[..., TrainConfig]

SERIAL = {"strategy": "sync", "workers": 1}
PROMISES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "sync": ({}, SERIAL),
    "local_sgd": ({"local_steps": 3}, {}),
    "model_parallel": ({"grid": "rows=2"}, {}),
    "hogwild": ({}, None),
    "param_server": ({}, None),
}
"""Strategy -> settings, and those of the inline run whose bits it must have (its own where they
are empty); None where the bits may vary."""

ENGINES = [
    "inline",
    "local",
    pytest.param("spark_local", marks=(pytest.mark.spark, pytest.mark.full)),
    pytest.param("spark_cluster", marks=(pytest.mark.spark, pytest.mark.full)),
]
SMALL = {"data": "synthetic:64x3x8x8", "batch_size": 10, "steps": 8, "workers": 2}


def test_no_strategy_is_left_out() -> None:
    assert set(PROMISES) == set(STRATEGIES)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("strategy", PROMISES)
def test_a_strategy_keeps_its_promise(
    configure: Configure,
    engine_named: Callable[[str], Engine],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    strategy: str,
    name: str,
) -> None:
    is_spark = name.startswith("spark")
    engine = request.getfixturevalue(name) if is_spark else engine_named(name)
    own, twin = PROMISES[strategy]
    settings = SMALL | {"strategy": strategy} | own
    found = train(
        configure(**settings, engine=engine.name, out=str(tmp_path / "run")), engine=engine
    )
    assert (found["strategy"], found["engine"]) == (strategy, engine.name)
    # Seven batches are an epoch of 64 images; the eighth has ten.
    assert (found["workers"], found["images"]) == (2, 74)
    assert math.isfinite(found["test_loss"])
    if twin is not None:
        expected = train(configure(**(settings | twin), out=str(tmp_path / "twin")))
        for figure in ("weights_sha256", "test_loss", "test_accuracy"):
            assert found[figure] == expected[figure], figure
