"""The user's own network, loss, optimizer and callback travel with the estimator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.spark import tables
from tests.spark_masters import EngineProcess

import sixfold

pytestmark = [pytest.mark.spark, pytest.mark.full]

MINE = """
import torch
from torch import nn
from parts import width


class Net(nn.Module):
    def __init__(self, classes, in_channels):
        super().__init__()
        self.body = nn.Conv2d(in_channels, width, 3, stride=2)
        self.head = nn.Linear(width * 9, classes)

    def forward(self, x):
        return self.head(self.body(x).relu().flatten(1))


def loss(output, target):
    return nn.functional.cross_entropy(output, target, reduction="sum")


class Half(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr / 2)


class Watch:
    def on_step(self, moment):
        return None
"""


def fit_own(engine: Any, folder: str) -> dict[str, Any]:
    import importlib
    import os
    import sys

    from torch import nn

    from sixfold.core.errors import UserError
    from sixfold.spark import SixfoldClassificationModel

    os.chdir(folder)
    sys.path.insert(0, folder)
    try:
        mine: Any = importlib.import_module("mine")

        class Inner(mine.Net):
            """Of a notebook: it cannot be imported by any name."""

        table = tables.encoded(tables.session_of(engine))
        told: dict[str, Any] = {}
        own = {
            "names": {"model": "mine:Net", "loss": "mine:loss", "optimizer": "mine:Half"},
            "objects": {"model": mine.Net, "loss": mine.loss, "callback": [mine.Watch()]},
            "inner": {"model": Inner, "loss": lambda output, target: mine.loss(output, target)},
            "instance": {"model": nn.Sequential(nn.Flatten(), nn.Linear(192, 3))},
        }
        for name, params in own.items():
            estimator = tables.classifier(out=f"{folder}/runs/{name}", **params)
            model = estimator.fit(table)
            told[name] = model.summary.weights_sha256
            told["data"] = model.summary.data
            told[f"{name} scored"] = model.transform(table).where("prediction is null").count()
            if name in ("inner", "instance"):
                model.write().overwrite().save(f"{folder}/saved-{name}")
                Path(f"{folder}/runs/{name}").rename(f"{folder}/runs/gone-{name}")
                again = SixfoldClassificationModel.load(f"{folder}/saved-{name}")
                both = [
                    [row.probability for row in each.transform(table).orderBy("id").collect()]
                    for each in (again, SixfoldClassificationModel.of(f"{folder}/runs/gone-{name}"))
                ]
                told[f"{name} again"] = both[0] == both[1]
        try:
            estimator.write().save(f"{folder}/estimator")
        except UserError as error:
            told["unsaved"] = error.problems[0]
        return told
    finally:
        sys.path.remove(folder)


def test_what_is_the_users_own_travels(
    spark_any: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "parts.py").write_text("width = 4\n")
    told = spark_any.call(fit_own, str(tmp_path))
    assert all(told[f"{name} scored"] == 0 for name in ("names", "objects", "inner", "instance"))
    assert told["inner again"]
    assert told["instance again"]
    assert told["unsaved"].startswith("model: an object of a notebook")
    assert told["objects"] == told["inner"] != told["names"]
    monkeypatch.chdir(tmp_path)
    same = sixfold.train(
        "mine:Net", told["data"], loss="mine:loss", optimizer="mine:Half", test=0.0, batch_size=20,
        steps=6, lr=0.005, evaluate_every=0.0, engine="inline", workers=1, out="same",
    )  # fmt: skip
    assert same.weights_sha256 == told["names"]
