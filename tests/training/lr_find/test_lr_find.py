"""The range test: its rates, where it ends, what it suggests, and what it writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sixfold.cli import main
from sixfold.core.errors import UserError
from sixfold.core.settings import build_tree
from sixfold.training.callbacks import Moment, Stop
from sixfold.training.lr_find.config import LrFindConfig
from sixfold.training.lr_find.divergence import StopAtDivergence, smoothed, suggested
from sixfold.training.lr_find.run import lr_find


def configured(**settings: Any) -> LrFindConfig:
    small = {"data": "synthetic:200x3x8x8", "model": "slide", "batch_size": 20}
    return build_tree(LrFindConfig, {**small, "engine": "inline", "workers": 1, **settings})


def test_the_suggestion_is_the_steepest_place_of_the_smoothed_loss() -> None:
    rates = np.geomspace(1e-5, 10, 121)
    place = np.log10(rates)
    losses = 3 - 2 / (1 + np.exp(-4 * (place + 2))) + np.where(place > 0, 30 * place**2, 0)
    found = suggested(rates, losses)
    assert found is not None
    curve = smoothed(losses)
    slope = np.gradient(curve, np.log(rates))
    assert found == rates[: int(np.argmin(curve))][int(np.argmin(slope[: int(np.argmin(curve))]))]
    assert 1e-2 < found < 1e-1


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    assert suggested(np.geomspace(1e-3, 1, 20), np.linspace(1, 5, 20)) is None
    assert suggested(np.array([0.1]), np.array([2.0])) is None


def test_smoothing_is_the_weighted_mean_of_what_was() -> None:
    values = np.array([4.0, 2.0, 1.0])
    weights = np.array([0.81, 0.9, 1.0])
    assert smoothed(values)[2] == pytest.approx((values * weights).sum() / weights.sum())
    assert smoothed(values)[0] == 4.0


def test_a_test_ends_when_the_loss_has_risen() -> None:
    stopper = StopAtDivergence()

    def told(step: int, loss: float) -> Any:
        return stopper.on_step(
            Moment(step=step, total_steps=99, epoch=0, lr=0, loss=loss, accuracy=0)
        )

    assert all(told(step, 1.0) is None for step in range(1, 20))
    assert isinstance(told(20, 100.0), Stop)


@pytest.mark.parametrize("workers", [1, 2])
def test_rates_rise_in_equal_ratios_until_the_loss_does(tmp_path: Path, workers: int) -> None:
    config = configured(out=str(tmp_path / "run"), workers=workers, lr_to=1e4, steps=60)
    found = lr_find(config)
    assert found["steps"] < 60
    ratios = np.diff(np.log(found["rates"]))
    assert np.allclose(ratios, np.log(1e10) / 59)
    assert found["rates"][0] == pytest.approx(1e-6)
    assert 1e-5 < found["suggested_lr"] < 10
    assert json.loads((tmp_path / "run" / "lr-find.json").read_text()) | found == found
    assert f"suggested: --lr {found['suggested_lr']:.2g}" in Path(found["report"]).read_text()
    one = configured(out=str(tmp_path / "one"), lr_to=1e4, steps=60)
    assert lr_find(one)["losses"] == found["losses"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    config = configured(lr_from=1.0, lr_to=0.1, lr=0.5, schedule="cosine", epochs=3)
    with pytest.raises(UserError) as caught:
        lr_find(config)
    assert [line.split()[0].rstrip(":") for line in caught.value.problems] == [
        "--lr-from",
        "--lr",
        "--schedule",
        "--epochs",
    ]


def test_a_rate_of_zero_is_refused() -> None:
    assert configured(lr_from=0.0).problems() == ["--lr-from 0.0: must be above 0"]


def test_the_command_prints_the_suggestion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "lr-find --data synthetic:100x3x8x8 --model slide --batch-size 20 --steps 15 --engine"
    assert main([*words.split(), "inline", "--workers", "1", "--out", str(tmp_path / "run")]) == 0
    assert "tried              1e-06 to" in capsys.readouterr().out
