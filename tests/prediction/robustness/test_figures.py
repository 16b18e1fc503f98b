"""The arithmetic of a robustness evaluation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from sixfold.core.errors import UserError
from sixfold.core.statistics import wilson
from sixfold.prediction.robustness.config import DistortionConfig, EvaluateConfig, EvaluationConfig
from sixfold.prediction.robustness.distortions import planned
from sixfold.prediction.robustness.figures import halfway, variant_figures
from sixfold.prediction.robustness.ranks import chosen_images, known_labels


@pytest.mark.parametrize(("correct", "images"), [(0, 5), (3, 7), (99, 100), (10, 10)])
def test_intervals_are_wilsons(correct: int, images: int) -> None:
    wanted = binomtest(correct, images).proportion_ci(0.95, "wilson")
    assert wilson(correct, images) == pytest.approx((wanted.low, wanted.high))


def test_figures_are_those_of_counting() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    clean = np.array([0, 0, 1, 1, 1, 0])
    predicted = np.array([0, 1, 0, 1, 2, 2])
    found = variant_figures(labels, predicted, clean, 0.5, ("a", "b", "c", "d"))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["difference"]["mean"] == pytest.approx(0)
    # 2 lost, 2 gained: variance 4 / 36
    assert found["difference"]["high"] == pytest.approx(1.96 * 2 / 6, rel=1e-3)
    assert found["changed"] == pytest.approx(4 / 6)
    assert [entry["correct"] for entry in found["per_class"]] == [2, 1, 1, 0]
    assert [entry["predicted"] for entry in found["per_class"]] == [2, 2, 2, 0]
    assert found["per_class"][3]["accuracy"] is None
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_halfway_is_interpolated_bounded_or_absent() -> None:
    assert halfway([1, 2, 3], [0.9, 0.6, 0.1], clean=1.0, chance=0.0) == pytest.approx(2.2)
    assert halfway([1, 2], [0.4, 0.1], clean=1.0, chance=0.0) == 1
    assert halfway([1, 2], [0.9, 0.8], clean=1.0, chance=0.0) is None
    assert halfway([1], [0.1], clean=0.1, chance=0.1) is None


def test_labels_are_mapped_and_images_chosen() -> None:
    class Part:
        labels = np.array([0, 1, 2, -1, 1])

    labels = known_labels(Part(), (5, -1, 3))  # type: ignore[arg-type]
    assert labels.tolist() == [5, -1, 3, -1, -1]
    assert chosen_images(labels, None).tolist() == [0, 2]
    assert chosen_images(labels, 1).tolist() == [0]


def test_every_wrong_strength_is_told_at_once() -> None:
    config = DistortionConfig(noise="0.1,x", blur="-1", downsample="1", rotate="", examples=-1)
    asked = EvaluateConfig(distortion=config, evaluation=EvaluationConfig(run="r", max_images=0))
    found = "\n".join(asked.problems())
    for word in ("--noise 'x'", "--blur '-1'", "--downsample '1'", "--examples", "--max-images"):
        assert word in found
    assert "rotate" not in found
    with pytest.raises(UserError):
        planned(config)
