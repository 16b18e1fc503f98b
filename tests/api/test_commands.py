"""Every command as a function: options by name, or settings as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch import nn

import sixfold
from sixfold.core.errors import UserError

SMALL: dict[str, Any] = {"engine": "inline", "workers": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sixfold.TrainResult:
    out = tmp_path_factory.mktemp("commands") / "run"
    return sixfold.train("lenet300", "digits", resize=28, steps=5, lr=0.05, out=str(out), **SMALL)


def test_predict(run: sixfold.TrainResult, tmp_path: Path) -> None:
    figures = sixfold.predict(run, "digits", tmp_path / "scores.parquet", **SMALL)
    assert figures["images"] == pq.read_table(tmp_path / "scores.parquet").num_rows
    assert figures["accuracy"] == run.test_accuracy
    own = sixfold.predict(run, out=tmp_path / "own.parquet", **SMALL)
    same = ("accuracy", "confusion", "part", "data")
    assert [own[name] for name in same] == [figures[name] for name in same]
    (tmp_path / "own.parquet.json").unlink()
    with pytest.raises(UserError, match="no prediction has written"):
        sixfold.predict(run, out=tmp_path / "own.parquet", **SMALL)
    sixfold.predict(run, out=tmp_path / "own.parquet", overwrite=True, **SMALL)
    with pytest.raises(UserError, match="'spllit': did you mean split"):
        sixfold.predict(run.path, "digits", "x", spllit="all")
    with pytest.raises(UserError, match="workers: not together with a PredictConfig"):
        sixfold.predict(sixfold.PredictConfig(), workers=3)


@pytest.mark.full
def test_prepare_and_evaluate_and_compress(run: sixfold.TrainResult, tmp_path: Path) -> None:
    made = sixfold.prepare("synthetic:40x3x8x8", tmp_path / "shards", **SMALL)
    assert made["images"] == {"train": 40, "test": 10}
    told: list[str] = []
    found = sixfold.evaluate_robustness(
        run, noise="0.1", max_images=20, on_event=lambda e: told.append(e["kind"]), **SMALL
    )
    assert found["images"] == 20
    assert "distorted" in told
    small = sixfold.compress(
        run, sparsity="0.5", rounds=1, prune_epochs=0.1, share_epochs=0.1,
        out=str(tmp_path / "small"), **SMALL,
    )  # fmt: skip
    assert Path(small["report"]).is_file()


def test_profile_of_a_run(run: sixfold.TrainResult) -> None:
    assert sixfold.profile(run) == sixfold.profile(run.path)
    with pytest.raises(UserError, match="a run is only read"):
        sixfold.profile(run, lr=0.1)
    with pytest.raises(UserError, match="expected a ProfileConfig, or options by name"):
        sixfold.profile(3)


def test_rates_are_tried_on_a_network_and_data_in_hand(tmp_path: Path) -> None:
    images, labels = np.zeros((40, 8, 8), np.uint8), [0, 1] * 20
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    found = sixfold.lr_find(
        network, (images, labels), steps=4, batch_size=10, out=str(tmp_path / "run"), **SMALL
    )
    assert len(found["rates"]) == 4
    with pytest.raises(UserError, match=r"--lr-from 0\.0: must be above 0") as refused:
        sixfold.lr_find(3, lr_from=0.0)
    assert "model is a int" in str(refused.value)


@pytest.mark.parametrize("name", ["plan", "profile", "tickets", "lca_learn", "lr_find", "doctor"])
def test_other_commands_read_their_options(name: str) -> None:
    function = getattr(sixfold, name)
    with pytest.raises(UserError, match="there is no setting 'modelx'"):
        function(modelx="slide")
    with pytest.raises(UserError, match="--workers 0: must be at least 1"):
        function(workers=0)
