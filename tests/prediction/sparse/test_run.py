"""From a pruned run to a prediction with sparse layers, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sixfold.cli import main
from sixfold.models import build
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.sparsity import magnitude_mask, prunable, prune_counts, save_mask


@pytest.fixture
def pruned(configure: Callable[..., TrainConfig], tmp_path: Path) -> Path:
    """A run of a network of which 3% of the weights are left."""
    config = configure(model="lenet300")
    network = build(config.model, shape=(3, 8, 8), classes=10, seed=0)
    weights = dict(network.named_parameters())
    mask = magnitude_mask(weights, prune_counts(prunable(network), 0.97, scope="layerwise"))
    save_mask(tmp_path / "mask", mask)
    out = str(tmp_path / "run")
    train(configure(model="lenet300", mask=str(tmp_path / "mask"), out=out))
    return tmp_path / "run"


def test_predictions_are_the_same_with_the_chosen_forms(
    pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sparse", str(pruned), "--batches", "2,40", "--repeats", "2", "--crossover"]) == 0
    told = capsys.readouterr().out
    assert told.count("fc2 ") == 2
    assert "whole network" in told
    choice = json.loads((pruned / "sparse.json").read_text())
    assert choice["batch"] == 40
    assert set(choice["layers"]) == {"fc1", "fc2", "fc3"}
    # Whatever was faster here: each form must give the same labels.
    words = ["predict", str(pruned), "--data", "synthetic:200x3x8x8", "--engine", "inline"]
    found = []
    for form in ("dense", "csr", "axpy"):
        file = tmp_path / f"{form}.json"
        file.write_text(json.dumps({"layers": dict.fromkeys(choice["layers"], form)}))
        out = tmp_path / f"{form}.parquet"
        assert main([*words, "--sparse", str(file), "--out", str(out)]) == 0
        found.append(pq.read_table(out))
    scores = [name for name in found[0].column_names if name.startswith("score_")]
    for table in found[1:]:
        assert table["label"].equals(found[0]["label"])
        for name in scores:
            expected = pytest.approx(found[0][name].to_pylist(), abs=1e-5)
            assert table[name].to_pylist() == expected


def test_wrong_input_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparse", "--batches", "0", "--repeats", "0"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert main(["sparse", str(tmp_path / "none")]) == 2
    assert "there is no run" in capsys.readouterr().err
