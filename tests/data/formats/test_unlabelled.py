"""Pictures without labels: all of them are read, and they can be predicted but not learnt from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import sixfold
from sixfold.core.errors import UserError
from sixfold.data import open_data, resolve
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.prediction.config import PredictConfig, PredictionConfig
from sixfold.prediction.run import predict
from sixfold.training.run import train


def pictures(folder: Path, count: int = 5) -> None:
    (folder / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(count):
        pixels = random.integers(0, 255, (9, 7, 3), np.uint8)
        name = f"deep/{index}.png" if index % 2 else f"{index}.png"
        Image.fromarray(pixels).save(folder / name)
    (folder / ".hidden").write_text("no picture")


def test_all_pictures_are_the_test_part(tmp_path: Path) -> None:
    pictures(tmp_path / "new")
    config = resolve(DataConfig(data=f"images:{tmp_path}/new", resize=8))
    data = open_data(config)
    assert (len(data.train), len(data.test)) == (0, 5)
    names = data.test.names(np.arange(5))
    assert [Path(name).name for name in names] == ["0.png", "2.png", "4.png", "1.png", "3.png"]


def test_they_are_predicted_and_not_trained_on(tmp_path: Path) -> None:
    pictures(tmp_path / "new")
    run = tmp_path / "run"
    quick = {"data": "synthetic:40x3x8x8", "model": "slide", "batch_size": 20, "steps": 2}
    train(sixfold.configure(**quick, engine="inline", workers=1, out=str(run)))
    engine = EngineConfig(engine="inline", workers=2)
    asked = PredictionConfig(
        run=str(run), data=f"images:{tmp_path}/new", out=str(tmp_path / "scores.parquet")
    )
    figures = predict(PredictConfig(prediction=asked, engine=engine))
    assert figures["images"] == 5
    assert "accuracy" not in figures
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column("true_label").null_count == 5
    assert json.loads((tmp_path / "scores.parquet.json").read_text())["part"] == "test"
    again = quick | {"data": f"images:{tmp_path}/new", "batch_size": 2, "resize": 8}
    with pytest.raises(UserError, match="has no labels to learn from"):
        train(sixfold.configure(**again, engine="inline", workers=1, out=str(tmp_path / "x")))


def test_a_flat_folder_of_pictures_is_pointed_here(tmp_path: Path) -> None:
    pictures(tmp_path / "new")
    with pytest.raises(UserError, match="images:PATH"):
        resolve(DataConfig(data=f"folder:{tmp_path}/new"))


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        resolve(DataConfig(data=f"images:{tmp_path}/new"))


def test_labelled_folders_without_a_test_part_are_predicted_whole_unless_trained_on(
    tmp_path: Path,
) -> None:
    for name in ("cat", "dog"):
        pictures(tmp_path / "pets" / name, 10)
    run = tmp_path / "run"
    spec = f"folder:{tmp_path}/pets"
    train(
        sixfold.configure(
            data=spec,
            resize=8,
            model="slide",
            batch_size=4,
            steps=2,
            engine="inline",
            workers=1,
            out=str(run),
        )
    )
    for data, count in ((spec, 4), (f"folder:{tmp_path}/./pets/../more", 20)):
        if "more" in data:
            (tmp_path / "pets").rename(tmp_path / "more")
        asked = PredictionConfig(run=str(run), data=data, out=str(tmp_path / f"{count}.parquet"))
        engine = EngineConfig(engine="inline", workers=1)
        assert predict(PredictConfig(prediction=asked, engine=engine))["images"] == count


def test_a_set_without_labelled_test_images_is_trained_on_only_with_a_split(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "test"):
        pictures(tmp_path / "pets" / folder, 10)
    given: dict[str, Any] = {
        "data": f"folder:{tmp_path}/pets",
        "resize": 8,
        "model": "slide",
        "batch_size": 4,
    }
    given |= {"steps": 2, "engine": "inline", "workers": 1, "out": str(tmp_path / "run")}
    with pytest.raises(UserError, match=r"has no test images with labels .* give --test-split 0.2"):
        train(sixfold.configure(**given))
    assert not (tmp_path / "run").exists()
    result = train(sixfold.configure(**given, test_split=0.2))
    assert 0 <= result["test_accuracy"] <= 1
    assert [line for line in result["bad_files"] if line.startswith("test/")]
    # The part that was set aside is what a prediction of the same set scores.
    out = PredictionConfig(run=given["out"], data=given["data"], out=str(tmp_path / "s.parquet"))
    engine = EngineConfig(engine="inline", workers=1)
    assert predict(PredictConfig(prediction=out, engine=engine))["images"] == 4
