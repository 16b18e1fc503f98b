"""Settings of a prediction against each other."""

from sixfold.core.settings import build_tree
from sixfold.prediction.config import PredictConfig


def test_ranks_of_a_prediction_do_not_come_and_go() -> None:
    given = {"run": "runs/a", "out": "a.parquet", "workers": "2:8"}
    assert build_tree(PredictConfig, given).problems() == [
        "--workers 2:8: only for `sixfold train`; `sixfold predict` takes a number of workers"
    ]
    assert build_tree(PredictConfig, given | {"workers": "2"}).problems() == []


def test_a_name_of_another_format_is_refused() -> None:
    (line,) = build_tree(PredictConfig, {"run": "runs/a", "out": "a.CSV"}).problems()
    assert line.startswith("--out a.CSV: predictions are written as Parquet")
