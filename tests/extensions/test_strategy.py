"""A user's own strategy: a `StrategySpec` that is named on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]
SMALL = {"data": "synthetic:64x3x8x8", "batch_size": 16, "steps": 4, "lr": 0.001}
OWN = SMALL | {"strategy": "tests.extensions.sign_sgd:SPEC"}


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_it_runs_and_keeps_its_promise(configure: Configure, tmp_path: Path, engine: str) -> None:
    one = train(configure(**OWN, workers=1, out=str(tmp_path / "one")))
    two = train(configure(**OWN, workers=2, engine=engine, out=str(tmp_path / "two")))
    usual = train(configure(**SMALL, out=str(tmp_path / "usual")))
    assert one["weights_sha256"] == two["weights_sha256"] != usual["weights_sha256"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tests.extensions.sign_sgd:build", "is a function: name a"),
        ("tests.extensions.sign_sgd:SPEK", "SPEK"),
        ("tests.extensions.nothing:SPEC", "nothing"),
    ],
)
def test_what_is_no_strategy_is_refused_in_one_line(
    configure: Configure, tmp_path: Path, name: str, why: str
) -> None:
    with pytest.raises(UserError) as caught:
        train(configure(**SMALL | {"strategy": name}, out=str(tmp_path)))
    (line,) = caught.value.problems
    assert why in line
    assert "\n" not in line


def test_its_own_checks_are_made(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sign_sgd moves every weight by it"):
        train(configure(**OWN | {"lr": 0.5}, out=str(tmp_path)))
