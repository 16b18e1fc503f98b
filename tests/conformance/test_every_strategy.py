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
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.strategies.registry import STRATEGIES
from sixfold.training.strategies.spec import RESTART

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

MOST_LOST: dict[str, int | None] = {
    "sync": 1,
    "local_sgd": 3,
    "model_parallel": 1,
    "hogwild": None,
    "param_server": None,
}
"""Strategy -> steps that are made again at most when a rank is lost; None where all ranks start
again, or no step is anybody's (`tests/training/strategies` has these)."""

ENGINES = [
    "inline",
    "local",
    pytest.param("spark_local", marks=(pytest.mark.spark, pytest.mark.full)),
    pytest.param("spark_cluster", marks=(pytest.mark.spark, pytest.mark.full)),
]
SMALL = {"data": "synthetic:64x3x8x8", "batch_size": 10, "steps": 8, "workers": 2}


def test_no_strategy_is_left_out() -> None:
    assert set(PROMISES) == set(MOST_LOST) == set(STRATEGIES)
    waits = {name for name, spec in STRATEGIES.items() if spec.on_loss != RESTART}
    assert waits == {name for name, most in MOST_LOST.items() if most is not None}


@pytest.mark.parametrize("strategy", [name for name, most in MOST_LOST.items() if most])
def test_a_lost_rank_costs_no_bit_and_no_more_steps_than_promised(
    configure: Configure, tmp_path: Path, strategy: str
) -> None:
    most = MOST_LOST[strategy] or 0
    settings = SMALL | {"strategy": strategy} | PROMISES[strategy][0] | {"engine": "inline"}
    calm = train(configure(**settings, out=str(tmp_path / "calm")))

    def strike(slot: int, life: int, count: int) -> bool:
        return (slot, life) == (1, 0) and count == 12

    engine = InlineEngine(strike=strike)
    found = train(configure(**settings, out=str(tmp_path / "run")), engine=engine)
    assert found["weights_sha256"] == calm["weights_sha256"]
    assert found["restarts"] == 1
    first, *later = found["views"]
    assert first["ranks"] == 2
    assert len(later) >= 1
    assert found["lost_steps"] == sum(view["lost_steps"] for view in later) <= most
    assert 0 < found["stall_s"] == pytest.approx(sum(view["stall_s"] for view in later))


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
