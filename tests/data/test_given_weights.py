"""Weights beside arrays and in tables that are handed over in Python."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sixfold.core.errors import UserError
from sixfold.data import open_data
from sixfold.data.config import DataConfig
from sixfold.data.given import write_given
from sixfold.data.given_sources import parts_of

COUNT = 40
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (COUNT, 6, 6), dtype=np.uint8)
LABELS = np.arange(COUNT) % 2
WEIGHTS = np.arange(COUNT) / 2 + 1


@pytest.mark.parametrize("target", ["classes", "regression"])
def test_the_third_array_is_weights(tmp_path: Path, target: str) -> None:
    labels = LABELS if target == "classes" else WEIGHTS * 2.0
    config = DataConfig(target=target)
    parts = parts_of((IMAGES, labels, WEIGHTS), "data", config, tmp_path)
    found = open_data(DataConfig(data=write_given(parts, cut_test=True, target=target)))
    for part in (found.train, found.test):
        assert part.weights is not None
        for place in range(len(part)):
            image = part.images(np.array([place]))[0, 0]
            index = int((part.weights[place] - 1) * 2)
            assert (image == IMAGES[index]).all()


def test_a_table_has_a_column_of_weights(tmp_path: Path) -> None:
    table = pd.DataFrame({"image": list(IMAGES), "label": LABELS, "w": WEIGHTS})
    config = DataConfig(data="parquet:.", weight_column="w")
    parts = parts_of(table, "data", config, tmp_path)
    found = open_data(DataConfig(data=write_given(parts, cut_test=False)))
    assert found.train.weights is not None
    assert sorted(found.train.weights) == WEIGHTS.tolist()


@pytest.mark.parametrize("weights", [WEIGHTS[1:], -WEIGHTS, WEIGHTS * 0, WEIGHTS * np.nan])
def test_what_is_no_weight_is_refused(tmp_path: Path, weights: object) -> None:
    with pytest.raises(UserError, match="weights"):
        parts_of((IMAGES, LABELS, weights), "data", DataConfig(), tmp_path)


class Items:
    """Pairs and a third value, or mappings; the third says how much an item counts."""

    def __init__(self, *, names: bool, weights: object = WEIGHTS) -> None:
        self.names, self.weights = names, weights

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> object:
        item = (IMAGES[index], int(LABELS[index]), self.weights[index])  # type: ignore[index]
        return dict(zip(("image", "label", "counts"), item, strict=True)) if self.names else item


@pytest.mark.parametrize(("names", "column"), [(True, "counts"), (False, "2")])
def test_items_have_weights_where_they_are_named(names: bool, column: str, tmp_path: Path) -> None:
    parts = parts_of(Items(names=names), "data", DataConfig(weight_column=column), tmp_path)
    plain = parts_of((IMAGES, LABELS, WEIGHTS), "data", DataConfig(), tmp_path)
    found = [open_data(DataConfig(data=write_given(p, cut_test=False))) for p in (parts, plain)]
    items, arrays = (each.train.weights for each in found)
    assert items is not None
    assert arrays is not None
    assert items.tolist() == arrays.tolist()
    ignored = parts_of(Items(names=names), "data", DataConfig(), tmp_path)
    assert ignored["train"].weights is None


@pytest.mark.parametrize(
    ("names", "column", "weights", "said"),
    [
        (True, "weight", WEIGHTS, "item 0 has no weight: it holds image, label, counts"),
        (False, "5", WEIGHTS, "item 0 has 3 values and no 5"),
        (False, "2", -WEIGHTS - 1, "item 0 counts"),
        (False, "2", WEIGHTS * 0, "weights are all 0"),
    ],
)
def test_items_without_weights_are_refused(
    names: bool, column: str, weights: object, said: str, tmp_path: Path
) -> None:
    data = Items(names=names, weights=weights)
    with pytest.raises(UserError, match=said):
        write_given(
            parts_of(data, "data", DataConfig(weight_column=column), tmp_path), cut_test=False
        )
