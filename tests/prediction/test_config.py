"""Settings of a prediction against each other."""

from sixfold.core.settings import build_tree
from sixfold.prediction.config import PredictConfig


def test_ranks_of_a_prediction_do_not_come_and_go() -> None:
    given = {"run": "runs/a", "out": "a.parquet", "workers": "2:8"}
    assert build_tree(PredictConfig, given).problems() == [
        "--workers 2:8: only for `sixfold train`; `sixfold predict` takes a number of workers"
    ]
    assert build_tree(PredictConfig, given | {"workers": "2"}).problems() == []
