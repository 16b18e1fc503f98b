"""The classifier among scikit-learn's own tools."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from tests.marks import quick
from torch import nn

from sixfold.core.errors import UserError
from sixfold.sklearn import SixfoldClassifier, SixfoldRegressor

DIGITS = load_digits()
IMAGES, LABELS = DIGITS.images[:200], DIGITS.target[:200]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


def estimator(**changes: Any) -> SixfoldClassifier:
    usual: dict[str, Any] = {"model": network(), "epochs": 2, "lr": 0.05, "batch_size": 32}
    return SixfoldClassifier(**usual | changes)


CHECKS = [
    *("check_estimator_cloneable", "check_estimator_repr", "check_valid_tag_types"),
    *("check_no_attributes_set_in_init", "check_parameters_default_constructible"),
    *("check_get_params_invariance", "check_set_params", "check_mixin_order"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_s_checks_that_need_no_table(name: str) -> None:
    getattr(estimator_checks, name)("SixfoldClassifier", SixfoldClassifier())


def test_fit_predict_and_score() -> None:
    names = np.array([f"digit {label}" for label in LABELS])
    before = estimator(random_state=3)
    params = before.get_params()
    fitted = before.fit(IMAGES, names)
    assert fitted is before
    assert fitted.get_params() == params
    assert fitted.score(IMAGES, names) > 0.6
    assert fitted.classes_.tolist() == [f"digit {number}" for number in range(10)]
    proba = fitted.predict_proba(IMAGES)
    assert proba.shape == (200, 10)
    assert np.allclose(proba.sum(1), 1, atol=1e-5)
    assert (fitted.classes_[proba.argmax(1)] == fitted.predict(IMAGES)).all()
    again = clone(before).fit(IMAGES, names)
    assert again.result_["weights_sha256"] == fitted.result_["weights_sha256"]
    other = clone(before).set_params(random_state=4).fit(IMAGES, names)
    assert other.result_["weights_sha256"] != fitted.result_["weights_sha256"]
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(IMAGES), proba)
    assert fitted.history_[-1]["step"] == fitted.result_["steps"] == 14


def test_a_search_over_parameters() -> None:
    search = GridSearchCV(estimator(epochs=1), {"lr": [0.0, 0.05]}, cv=2).fit(IMAGES, LABELS)
    assert search.best_params_ == {"lr": 0.05}
    assert search.best_score_ > search.cv_results_["mean_test_score"].min()
    assert len(cross_val_score(estimator(epochs=1), IMAGES, LABELS, cv=2)) == 2


def test_rows_in_a_pipeline() -> None:
    rows = IMAGES.reshape(200, -1)
    brighter = FunctionTransformer(brightened)
    pipeline = make_pipeline(brighter, estimator(image_shape=(8, 8))).fit(rows, LABELS)
    assert pipeline.score(rows, LABELS) > 0.5
    assert pipeline[-1].n_features_in_ == 64
    with pytest.raises(ValueError, match="is expecting 64 features"):
        pipeline.predict(rows[:, :32])


def brightened(rows: Any) -> Any:
    return rows * 15


def test_a_run_may_be_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for lr in (0.01, 0.02):
        estimator(out=str(out), epochs=1, lr=lr, validation=0.1).fit(IMAGES, LABELS)
    assert (out / "report.html").is_file()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(NotFittedError):
        estimator().predict(IMAGES)
    with pytest.raises(ValueError, match="give image_shape"):
        estimator().fit(IMAGES.reshape(200, -1), LABELS)
    with pytest.raises(ValueError, match="200 images and 3 labels"):
        estimator().fit(IMAGES, LABELS[:3])
    with pytest.raises(ValueError, match="at least two"):
        estimator().fit(IMAGES, LABELS * 0)
    with pytest.raises(ValueError, match="Unknown label type"):
        estimator().fit(IMAGES, LABELS + 0.5)
    with pytest.raises(UserError, match="NaN or infinite"):
        estimator().fit(IMAGES * np.nan, LABELS)
    with pytest.raises(UserError, match="did you mean"):
        estimator(options={"momentun": 0.5}).fit(IMAGES, LABELS)


@pytest.mark.parametrize("loss", quick([None, "huber", "callable"], "huber"))
def test_a_regressor(loss: Any) -> None:
    ink = IMAGES.mean((1, 2))
    ink = (ink - ink.mean()) / ink.std()

    def absolute(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).abs().sum()

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    regressor = SixfoldRegressor(
        network, epochs=20, lr=0.003, loss=absolute if loss == "callable" else loss
    )
    fitted = regressor.fit(IMAGES, ink)
    assert fitted.predict(IMAGES).shape == ink.shape
    assert fitted.score(IMAGES, ink) > 0.5
    assert clone(regressor).fit(IMAGES, ink[:, None]).predict(IMAGES).shape == (200, 1)


def test_parameters_of_a_wrong_kind_are_told_together() -> None:
    wrong: dict[str, Any] = {"options": 3, "validation": "x", "random_state": "x", "batch_size": 0}
    with pytest.raises(UserError) as caught:
        SixfoldClassifier("lenet300", image_shape=(8,), **wrong).fit(IMAGES, LABELS)
    names = [line.partition(" ")[0] for line in caught.value.problems]
    assert names == ["validation", "batch_size", "random_state", "image_shape", "options"]
    with pytest.raises(ValueError, match="X is a str: expected images"):
        estimator().fit("images", LABELS)
    with pytest.raises(ValueError, match="y holds no numbers"):
        SixfoldRegressor(network()).fit(IMAGES, ["a"] * 200)


def test_a_random_state_gives_the_seed() -> None:
    one, two = (
        estimator(epochs=1, random_state=np.random.RandomState(seed)).fit(IMAGES, LABELS)
        for seed in (1, 1)
    )
    assert one.result_["weights_sha256"] == two.result_["weights_sha256"]
