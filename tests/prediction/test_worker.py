"""Prediction: the same file for any number of workers, and what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import sixfold
from sixfold.api.predictions import predict as classify
from sixfold.core.errors import RunError, SixfoldError, UserError
from sixfold.distributed.config import EngineConfig
from sixfold.prediction.config import PredictConfig, PredictionConfig
from sixfold.prediction.run import predict
from sixfold.prediction.scoring import class_map, class_note
from sixfold.training.config import TrainConfig
from sixfold.training.model_card import ModelCard, load_network, read_card, weights_file
from sixfold.training.run import train

DATA = "synthetic:300x3x8x8"


def ask(run: Path, out: Path, *, workers: int = 1, **changes: Any) -> PredictConfig:
    fields = {"run": str(run), "data": DATA, "out": str(out)} | changes
    return PredictConfig(
        prediction=PredictionConfig(**fields),
        engine=EngineConfig(engine="inline", workers=workers),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(
        sixfold.configure(
            data=DATA,
            model="slide",
            batch_size=50,
            steps=4,
            lr=0.002,
            engine="inline",
            workers=1,
            out=str(out),
        )
    )
    return out


def test_scores_that_are_not_finite_are_told_and_not_written(run: Path, tmp_path: Path) -> None:
    with safe_open(run / "model.safetensors", "pt") as file:
        card = file.metadata()["sixfold"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    next(iter(tensors.values())).fill_(torch.nan)
    save_file(tensors, tmp_path / "model.safetensors", {"sixfold": card})
    with pytest.raises(RunError, match=r"not finite for 60 of 60 images \(.* first\)"):
        predict(ask(tmp_path / "model.safetensors", tmp_path / "scores.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(RunError, match=r"not finite for 2 of 2 images \(image 0 first\)"):
        classify(sixfold.load(tmp_path / "model.safetensors"), np.zeros((2, 3, 8, 8), np.uint8))


@pytest.mark.parametrize("part", ["test", "train", "all"])
def test_the_file_is_the_same_for_any_number_of_workers(
    run: Path, tmp_path: Path, part: str
) -> None:
    files = []
    for workers in (1, 2, 5):
        out = tmp_path / f"{workers}.parquet"
        figures = predict(ask(run, out, workers=workers, split=part))
        files.append(out.read_bytes())
        assert figures["images"] == {"test": 60, "train": 300, "all": 360}[part]
    assert files[0] == files[1] == files[2]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{w}.parquet{end}" for w in (1, 2, 5) for end in ("", ".json")}


def test_scores_labels_and_figures_are_those_of_the_network(run: Path, tmp_path: Path) -> None:
    from sixfold.data import BatchMaker, open_data
    from sixfold.data.config import DataConfig

    out = tmp_path / "scores.parquet"
    figures = predict(ask(run, out))
    table = pq.read_table(out)
    network, card = load_network(weights_file(run))
    data = open_data(DataConfig(data=DATA))
    images, labels = BatchMaker(card.statistics())(data.test, np.arange(60))
    with torch.inference_mode():
        scores = network(images).softmax(1).numpy()
    found = np.stack([table.column(f"score_{name}").to_numpy() for name in card.classes], axis=1)
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-6)
    assert table.column("label").to_pylist() == [card.classes[i] for i in found.argmax(1)]
    assert table.column("true_label").to_pylist() == [card.classes[i] for i in labels]
    assert figures["accuracy"] == pytest.approx(float((scores.argmax(1) == labels.numpy()).mean()))
    assert json.loads((tmp_path / "scores.parquet.json").read_text()) == figures
    result = json.loads((run / "result.json").read_text())
    assert figures["accuracy"] == result["test_accuracy"]
    assert figures["confusion"] == result["confusion"]


def test_pictures_of_another_size_are_brought_to_the_networks(run: Path, tmp_path: Path) -> None:
    figures = predict(ask(run, tmp_path / "x.parquet", data="synthetic:300x3x8x8", resize=8))
    assert figures["images"] == 60
    with pytest.raises(UserError, match="trained on 3x8x8 images"):
        predict(ask(run, tmp_path / "y.parquet", data="synthetic:50x1x8x8"))
    assert not (tmp_path / "y.parquet").exists()


def card(classes: tuple[str, ...]) -> ModelCard:
    return ModelCard(
        model="slide",
        model_args="",
        precision="float32",
        shape=(3, 8, 8),
        classes=classes,
        mean=(0.0,),
        std=(1.0,),
    )


def test_classes_are_matched_by_name_then_by_order() -> None:
    known = card(("cat", "dog", "owl"))
    assert class_map(known, ("owl", "cat", "yak")) == (2, 0, -1)
    assert class_map(known, ("0", "1", "2")) == (0, 1, 2)
    assert class_map(known, ("0", "1")) == (-1, -1)


def test_classes_of_other_names_are_told() -> None:
    known = card(("cat", "dog"))
    notes = [
        class_note(known, classes, class_map(known, classes))
        for classes in (("dog",), ("cat", "dog", "(unlabelled)"), ("a", "b"), ("cat", "yak", "gnu"))
    ]
    assert notes == [
        "",
        "",
        "classes of the data have other names and are taken in their order: a for cat, b for dog",
        "the network knows no class yak, gnu: such images count as unlabelled",
    ]


def test_a_run_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the run is not finished"):
        weights_file(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is damaged or was not written by Sixfold"):
        read_card(weights_file(tmp_path))


def test_normalisation_is_the_trainings(
    run: Path, tmp_path: Path, configure: Callable[..., TrainConfig]
) -> None:
    card_of_run = read_card(weights_file(run))
    from sixfold.data import open_data
    from sixfold.data.config import DataConfig

    data = open_data(DataConfig(data=DATA))
    assert card_of_run.mean == tuple(data.mean)
    assert card_of_run.std == tuple(data.std)


def test_a_prediction_that_fails_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sixfold.prediction.worker.table", fail)
    with pytest.raises((KeyboardInterrupt, SixfoldError)):
        predict(ask(run, tmp_path / "scores.parquet"))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"--out /proc/scores\.parquet: cannot be written"):
        predict(ask(run, Path("/proc/scores.parquet")))


def test_predictions_of_a_table_can_be_joined_to_it(tmp_path: Path, run: Path) -> None:
    rng = np.random.default_rng(0)
    wanted: dict[str, str] = {}
    classes = read_card(weights_file(run)).classes
    for day in ("1", "2"):
        file = tmp_path / f"set/day={day}/part-0.parquet"  # one name in all folders, as Spark does
        file.parent.mkdir(parents=True)
        identity = [f"{day}-{row}" for row in range(9)]
        images = rng.integers(0, 256, (9, 3 * 8 * 8)).tolist()
        images[4] = None
        labels = [classes[row] if row % 2 else None for row in range(9)]
        columns = {"image": images, "label": labels, "id": identity, "confidence": range(9)}
        pq.write_table(pa.table(columns), file)
        wanted |= {f"day={day}/part-0.parquet[{row}]": name for row, name in enumerate(identity)}
    out = tmp_path / "scores.parquet"
    data = f"parquet:{tmp_path}/set"
    changes = {
        "data": data,
        "on_error": "skip",
        "id_column": "id",
        "keep_columns": "day, confidence",
    }
    figures = predict(ask(run, out, workers=2, **changes))
    table = pq.ParquetFile(out).read()
    assert table.column_names[:5] == ["file", "id", "day", "input_confidence", "label"]
    assert (figures["images"], figures["skipped_images"], figures["labelled_images"]) == (16, 2, 8)
    assert "day=2/part-0.parquet[4]: no image (null)" in figures["bad_files"]
    for row in table.to_pylist():
        assert wanted[row["file"]] == row["id"]
        number = int(row["id"][2:])
        assert (row["day"], row["input_confidence"]) == (row["id"][0], number)
        assert row["true_label"] == (classes[number] if number % 2 else None)
    with pytest.raises(UserError, match="--id-column id: only parquet:PATH has columns"):
        predict(ask(run, out, id_column="id"))


def test_rows_without_labels_are_no_class() -> None:
    card = ModelCard(
        model="slide", model_args="", precision="float32", shape=(3, 8, 8),
        classes=("a", "b", "c"), mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    assert class_map(card, ("0", "1", "(unlabelled)")) == (-1, -1, -1)
    assert class_map(card, ("0", "1", "2", "(unlabelled)")) == (0, 1, 2, -1)


def test_views_are_averaged_by_every_way_to_a_score(run: Path, tmp_path: Path) -> None:
    import sixfold
    from sixfold.data import open_data, resolve
    from sixfold.data.config import DataConfig

    outs = [tmp_path / f"{workers}.parquet" for workers in (1, 3)]
    for workers, out in zip((1, 3), outs, strict=True):
        told = predict(ask(run, out, workers=workers, tta="flip,shift:1", split="test"))
        assert told["tta"] == "flip,shift:1"
    assert outs[0].read_bytes() == outs[1].read_bytes()
    images = open_data(resolve(DataConfig(data=DATA))).test.images(np.arange(60))
    scores = sixfold.load(run, tta="flip,shift:1")(torch.from_numpy(images)).softmax(1)
    table = pq.read_table(outs[0])
    found = np.stack([table.column(f"score_{name}") for name in sixfold.load(run).classes], 1)
    assert np.abs(found - scores.detach().numpy()).max() < 1e-5
    plain = sixfold.load(run)(torch.from_numpy(images)).softmax(1)
    assert (plain - scores).abs().max() > 1e-3
    with pytest.raises(UserError, match="--tta turn: unknown view") as caught:
        predict(ask(run, outs[0], tta="turn,shift:0"))
    assert len(caught.value.problems) == 2
