"""Floating-point images are scored in the units of the training, however dark they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

import sixfold
from sixfold.core.errors import UserError
from sixfold.prediction.config import PredictConfig, PredictionConfig
from sixfold.prediction.run import predict
from sixfold.training.config import TrainConfig
from sixfold.training.model_card import read_card
from sixfold.training.run import train

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (40, 64)).astype(np.float64)
DARK = RNG.integers(0, 2, (6, 64)).astype(np.float64)  # of 255


def put(folder: Path, name: str, pixels: NDArray[np.float64]) -> str:
    file = folder / name / "part-0.parquet"
    file.parent.mkdir()
    labels = [number % 2 for number in range(len(pixels))]
    pq.write_table(pa.table({"image": pixels.tolist(), "label": labels}), file)
    return f"parquet:{file.parent}"


def scores(run: Path, data: str, **options: Any) -> NDArray[np.float32]:
    out = run.parent / "scores.parquet"
    asked = PredictionConfig(run=str(run), data=data, out=str(out), **options)
    predict(PredictConfig(prediction=asked))
    table = pq.read_table(out)
    rows = [int(name.partition("[")[2][:-1]) for name in table["file"].to_pylist()]
    table = table.take(np.argsort(rows))  # the test part comes last
    return np.stack([table[name].to_numpy() for name in ("score_0", "score_1")], axis=1)


@pytest.mark.full
@pytest.mark.parametrize(("unit", "told"), [(255.0, "0-255"), (1.0, "0-1")])
def test_another_table_is_in_the_units_of_the_trainings(
    configure: Callable[..., TrainConfig], tmp_path: Path, unit: float, told: str
) -> None:
    data = put(tmp_path, "set", PIXELS * unit / 255)
    run = tmp_path / "run"
    train(configure(data=data, model="lenet300", steps=3, batch_size=8, out=str(run)))
    assert read_card(run / "model.safetensors").pixel_range == told
    dark = put(tmp_path, "dark", DARK * unit / 255)
    as_bytes = put(tmp_path, "bytes", PIXELS[:1])
    raw = torch.from_numpy(DARK.astype(np.uint8).reshape(-1, 1, 8, 8))
    wanted = sixfold.load(run)(raw).softmax(1).detach().numpy()
    np.testing.assert_allclose(scores(run, dark), wanted, atol=1e-6)
    if unit == 1.0:
        with pytest.raises(UserError, match="expected 0 to 1"):
            scores(run, as_bytes)
        assert len(scores(run, as_bytes, pixel_range="0-255")) == 1


def test_arrays_are_in_the_units_of_the_trainings(tmp_path: Path) -> None:
    images, labels = PIXELS.reshape(-1, 8, 8), np.arange(40) % 2
    options: dict[str, Any] = {"model": "lenet300", "steps": 3, "batch_size": 8, "quiet": True}
    options |= {"engine": "inline", "workers": 1}
    dark = DARK.reshape(-1, 8, 8)
    result = sixfold.train(
        data=(images, labels), test=(dark, labels[:6]), out=str(tmp_path / "run"), **options
    )
    same = sixfold.train(
        data=(images.astype(np.uint8), labels),
        test=(dark.astype(np.uint8), labels[:6]),
        out=str(tmp_path / "bytes"),
        **options,
    )
    assert (result.weights_sha256, result.test_loss) == (same.weights_sha256, same.test_loss)
    np.testing.assert_array_equal(
        result.predict(dark).probabilities, same.predict(dark.astype(np.uint8)).probabilities
    )
