"""What reaches executors is counted, and scored alike from every kind of file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.spark import tables
from tests.spark_masters import EngineProcess

import sixfold

KINDS = ("PNG", "JPEG", "BMP", "TIFF")


def written_by_spark(session: Any, folder: str) -> Any:
    """Partition folders of four image types, with corrupt JPEGs and rows without a label."""
    from PIL import Image

    rows: list[Any] = []
    for row, pixels in enumerate(tables.pixels()):
        file, kind = io.BytesIO(), KINDS[row % 4]
        Image.fromarray(np.moveaxis(pixels, 0, 2)).save(file, kind)
        label = None if row % 20 == 5 else f"c{row % 3}"
        data = file.getvalue()
        if row in (1, 9, 13):  # JPEGs
            data = data[:40]
        rows.append((row, kind, bytearray(data), label))
    df = session.createDataFrame(rows, "id int, kind string, image binary, label string")
    df.write.partitionBy("kind", "label").parquet(f"{folder}/table")
    return session.read.parquet(f"{folder}/table")


def fit_and_score(engine: Any, folder: str) -> dict[str, Any]:
    from sixfold.core.errors import UserError
    from sixfold.spark import SixfoldClassificationModel

    session = tables.session_of(engine)
    table = written_by_spark(session, folder)
    told: dict[str, Any] = {}
    try:
        tables.classifier(out=f"{folder}/refused").fit(table)
    except UserError as error:
        told["problems"] = list(error.problems)
    model = tables.classifier(out=f"{folder}/run", handleInvalid="skip").fit(table)
    told["fit"] = {
        name: value for name, value in model.summary.fields.items()
        if name in ("rows", "skipped", "skipped_unlabelled", "skipped_unreadable", "decoded")
    }  # fmt: skip
    model.setErrorCol("why")
    for policy in ("keep", "skip"):
        scored = model.copy().setHandleInvalid(policy).transform(table)
        told[policy] = scored.count(), scored.where("why is not null").count()
    try:
        model.copy().setHandleInvalid("error").transform(table).collect()
    except Exception as error:
        told["error"] = str(error)

    sixfold.compress(
        f"{folder}/run", out=f"{folder}/small", rounds=1, prune_epochs=1.0, share_epochs=1.0,
        sparsity="0.9", bits="5", engine="inline", workers=1, trust_model=True, quiet=True,
    )  # fmt: skip
    good = tables.encoded(session, rows=12)
    small = SixfoldClassificationModel.of(f"{folder}/small/model.sixz")
    told["sixz"] = probabilities(small, good)
    sparse = small.copy().setSparse(f"{folder}/forms.json")
    told["sparse"] = probabilities(sparse, good)
    small.write().overwrite().save(f"{folder}/saved")
    told["saved"] = probabilities(SixfoldClassificationModel.load(f"{folder}/saved"), good)
    return told


def probabilities(model: Any, table: Any) -> Any:
    rows = model.transform(table).orderBy("id").collect()
    return np.array([row["probability"].toArray() for row in rows])


@pytest.mark.spark
@pytest.mark.full
def test_counts_and_scores_of_every_kind(spark_any: EngineProcess, tmp_path: Path) -> None:
    forms = {"layers": {"features.0": "dense", "classifier.1": "csr"}}
    (tmp_path / "forms.json").write_text(json.dumps(forms))
    told = spark_any.call(fit_and_score, str(tmp_path))
    assert any("3 of 60 rows have no label" in line for line in told["problems"])
    assert any("3 of 60 rows cannot be used" in line for line in told["problems"])
    assert told["fit"] == {
        "rows": 60, "skipped": 6, "skipped_unlabelled": 3, "skipped_unreadable": 3, "decoded": 0,
    }  # fmt: skip
    assert told["keep"] == (60, 3)
    assert told["skip"] == (57, 0)
    assert "has an image that cannot be used" in told["error"]
    import torch

    network = sixfold.load(tmp_path / "small" / "model.sixz")
    with torch.inference_mode():
        wanted = network(torch.from_numpy(tables.pixels(12))).softmax(1).numpy()
    for name in ("sixz", "sparse", "saved"):
        np.testing.assert_allclose(told[name], wanted, atol=1e-5)


class Means:
    """A network whose scores are an image's mean of each channel."""

    shape, classes = (3, 8, 8), ("a", "b", "c")

    def __call__(self, images: Any) -> Any:
        return images.float().mean((2, 3))


def as_pandas(cells: Any) -> Any:
    """A column as Spark hands it to a pandas UDF."""
    import pandas as pd

    if not isinstance(cells, pa.StructArray):
        return cells.to_pandas()
    parts = zip(cells.type, cells.flatten(), strict=True)
    return pd.DataFrame({field.name: part.to_pandas() for field, part in parts})


def test_every_form_that_spark_brings_is_scored_alike_and_nulls_stay_nulls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sixfold.data.targets import CLASSES, MULTI_LABEL, REGRESSION
    from sixfold.spark.scoring import Scorer, Weights

    pixels = tables.pixels(4)
    bgr = [np.moveaxis(image, 0, 2)[..., ::-1].tobytes() for image in pixels]
    sizes = {"height": 8, "width": 8, "nChannels": 3, "mode": 16}
    two = np.zeros((2, 8, 8), np.uint8)  # channels
    forms: dict[str, tuple[list[Any], Any]] = {
        "bytes": ([*map(tables.png, pixels)], b"no picture"),
        "image": ([{**sizes, "data": data} for data in bgr], {**sizes, "data": b"short"}),
        "file": ([{"bytes": tables.png(image), "path": ""} for image in pixels], {"bytes": b"x"}),
        "nested": ([image.tolist() for image in pixels], two.tolist()),
        "flat": ([image.ravel().astype(float).tolist() for image in pixels], [1.0, float("nan")]),
    }
    weights = Weights(b"", "", "", "")
    monkeypatch.setattr("sixfold.spark.scoring.classifier", lambda _: Means())
    wanted = pixels.mean((2, 3))
    for form, (images, bad) in forms.items():
        cells = pa.array([images[0], None, *images[1:3], bad, images[3]])
        for targets in (CLASSES, REGRESSION, MULTI_LABEL):
            scorer = Scorer(
                weights=weights, pixel_range="0-255", keep=True,
                label_values=(5.0, 6.0, 7.0), targets=targets,
            )  # fmt: skip
            scores = scorer.score(Means(), cells)
            rows = scores.to_pylist()
            (frame,) = scorer.frames(iter([as_pandas(cells)]))
            again = pa.RecordBatch.from_pandas(frame, pa.schema(list(scores.type)))
            told = again.to_struct_array().to_pylist()
            if pa.types.is_struct(cells.type):  # pandas has no null for all of it
                told[1]["error"] = rows[1]["error"]
            assert told == rows, form
            good = [row for row in rows if row["error"] is None]
            assert [row["error"] is None for row in rows] == [True, False, True, True, False, True]
            assert all(row["rawPrediction"] is None for row in rows if row["error"])
            raw = np.array([row["rawPrediction"] for row in good])
            np.testing.assert_allclose(raw, wanted, rtol=1e-6, err_msg=form)
            assert all((row["probability"] is None) == (targets == REGRESSION) for row in good)
            if targets == CLASSES:
                assert [row["prediction"] for row in good] == list(5.0 + wanted.argmax(1))
            elif targets == REGRESSION:
                assert [row["prediction"] for row in good] == [
                    row["rawPrediction"][0] for row in good
                ]
        strict = Scorer(weights=weights, pixel_range="0-255", keep=False, label_values=(0.0,) * 3)
        with pytest.raises(ValueError, match=r"row 1 of a batch .*no image \(null\)"):
            strict.score(Means(), cells)
        assert len(strict.score(Means(), cells[:0])) == 0
    with pytest.raises(ValueError, match="expected bytes of pictures"):
        strict.score(Means(), pa.array([1.5]))
