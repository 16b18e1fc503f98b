"""Networks for images as scikit-learn estimators, for `GridSearchCV`, `Pipeline` and the like.

>>> from sklearn.datasets import load_digits
>>> digits = load_digits()
>>> estimator = SixfoldClassifier("lenet300", epochs=3, lr=0.05, resize=28)
>>> estimator.fit(digits.images.astype("uint8") * 15, digits.target).score(
...     digits.images.astype("uint8") * 15, digits.target
... ) > 0.9
True
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from sixfold.api.functions import train
from sixfold.api.predictions import Predictions, predict
from sixfold.core.errors import raise_problems
from sixfold.data.splits import STRATA


class _SixfoldEstimator(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share.

    Images are arrays (N, H, W), (N, C, H, W) or (N, H, W, C), as for `sixfold.train`; rows
    (N, features) of a table with `image_shape`, as from a `Pipeline`.

    Args:
        model: as for `sixfold.train`.
        epochs, lr, batch_size, optimizer, momentum, weight_decay, schedule, resize, augment: as for
            `sixfold train`.
        loss: as for `sixfold train`, or a callable; by default cross-entropy, or the mean squared
            error of a regressor.
        random_state: the seed, or a `RandomState` that it is drawn from; None is 0.
        validation: share of the images that is set aside to select on.
        engine: "inline" (in this process), "local" or "spark".
        workers: number of ranks, on which the result does not depend.
        image_shape: (H, W), (C, H, W) or (H, W, C) of each row, where images come as rows.
        out: run directory that is kept; by default the run leaves only the network.
        options: other options of `sixfold train`, by name.

    Attributes:
        model_: the trained network, which takes raw images (N, C, H, W).
        result_: the figures of the training.
        history_: its metrics, a line for each step and evaluation.
    """

    def __init__(
        self,
        model: Any = "lenet5",
        *,
        epochs: float = 10.0,
        lr: float = 0.01,
        batch_size: int = 64,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        resize: int | None = None,
        augment: str = "none",
        loss: Any = None,
        random_state: int | None = None,
        validation: float | None = None,
        engine: str = "inline",
        workers: int | None = 1,
        image_shape: tuple[int, ...] | None = None,
        out: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.resize = resize
        self.augment = augment
        self.loss = loss
        self.random_state = random_state
        self.validation = validation
        self.engine = engine
        self.workers = workers
        self.image_shape = image_shape
        self.out = out
        self.options = options

    _usual_loss = ""

    def _fit(self, images: Any, labels: NDArray[Any], strata: int) -> None:
        """Train; of each of so many classes the share that is set aside is rounded."""
        if len(labels) != len(images):
            raise ValueError(f"{len(images)} images and {len(labels)} labels: expected as many")
        raise_problems(self._problems())
        with tempfile.TemporaryDirectory(prefix="sixfold-") as folder:
            left = len(images)
            if self.validation:
                left = int(left * (1 - self.validation)) - strata
            out = str(Path(folder) / "run") if self.out is None else self.out
            result = train(
                self.model,
                (images, labels),
                validation=self.validation,
                test=False,
                engine=self.engine,
                **self._options(left, out),
            )
            self.model_ = result.model()
            self.history_ = result.history
            self.result_ = dict(result)

    def _problems(self) -> list[str]:
        """What is wrong with parameters that this class reads itself; one line each."""
        expected = {
            "validation": ("a share, such as 0.1", _is_share),
            "batch_size": ("a whole number, at least 1", _is_size),
            "random_state": ("a whole number, or a RandomState", _is_seed),
            "image_shape": ("(H, W), (C, H, W) or (H, W, C)", _is_shape),
            "options": ("a mapping of options of `sixfold train`", _is_options),
        }
        return [
            f"{name} is {getattr(self, name)!r:.60}: expected {what}"
            for name, (what, is_good) in expected.items()
            if not is_good(getattr(self, name))
        ]

    def _options(self, images: int, out: Any) -> dict[str, Any]:
        names = ("epochs", "lr", "optimizer", "momentum", "weight_decay", "schedule", "resize")
        return {
            **{name: getattr(self, name) for name in (*names, "augment", "workers")},
            "loss": self._usual_loss if self.loss is None else self.loss,
            # Less than a batch of images is one batch.
            "batch_size": max(min(self.batch_size, images), 1),
            "seed": _seed(self.random_state),
            "out": out,
            "overwrite": self.out is not None,
            "quiet": True,
            **(self.options or {}),
        }

    def _predicted(self, images: Any) -> Predictions:
        check_is_fitted(self, "model_")
        return predict(self.model_, self._images(images, fitting=False))

    def _images(self, given: Any, *, fitting: bool) -> Any:
        """Images as `sixfold.train` takes them; rows in their shape."""
        array = given if hasattr(given, "detach") else np.asarray(given)
        if array.ndim == 0:
            kind = type(given).__name__
            raise ValueError(f"X is a {kind}: expected images, (N, H, W) or with channels")
        if array.ndim == 2:
            if self.image_shape is None:
                raise ValueError(
                    f"images of shape {tuple(array.shape)}: give image_shape=(H, W) or (C, H, W) "
                    "where they come as rows"
                )
            if fitting:
                self.n_features_in_ = array.shape[1]
            elif array.shape[1] != self.n_features_in_:
                raise ValueError(
                    f"X has {array.shape[1]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_} features as input"
                )
            if array.shape[1] != int(np.prod(self.image_shape)):
                raise ValueError(
                    f"rows of {array.shape[1]} numbers: image_shape {self.image_shape} has "
                    f"{int(np.prod(self.image_shape))}"
                )
            array = array.reshape(len(array), *self.image_shape)
        if len(array) == 0:
            raise ValueError("found array with 0 sample(s): expected at least one image")
        return array

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.input_tags.positive_only = True
        tags.non_deterministic = False
        return tags


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and 0 <= value < 1)


def _is_size(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_seed(value: Any) -> bool:
    return value is None or _is_whole(value) or isinstance(value, np.random.RandomState)


def _is_shape(value: Any) -> bool:
    is_sizes = isinstance(value, (tuple, list)) and all(map(_is_size, value))
    return value is None or (is_sizes and len(value) in (2, 3))


def _is_options(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(isinstance(k, str) for k in value))


def _seed(random_state: Any) -> int:
    """The seed that scikit-learn's kinds of random states stand for."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return 0 if random_state is None else int(random_state)


class SixfoldClassifier(ClassifierMixin, _SixfoldEstimator):  # type: ignore[misc]
    """A convolutional network, trained by `sixfold.train` on all images that `fit` is given.

    Attributes:
        classes_: the labels, sorted.
    """

    _usual_loss = "cross_entropy"

    def fit(self, X: Any, y: Any) -> SixfoldClassifier:
        """Train on images and their labels, (N,)."""
        check_classification_targets(y)
        images = self._images(X, fitting=True)
        labels = np.asarray(y)
        if labels.ndim != 1:
            raise ValueError(f"y has shape {labels.shape}: expected one label an image, (N,)")
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y has 1 class: a classifier needs at least two")
        self._fit(images, numbers, len(self.classes_))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probability of each class, (N, classes)."""
        return self._predicted(X).probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each image, (N,)."""
        predictions = self._predicted(X)
        found: NDArray[Any] = self.classes_[predictions.indices]
        return found


class SixfoldRegressor(RegressorMixin, _SixfoldEstimator):  # type: ignore[misc]
    """A convolutional network for numbers, trained as `SixfoldClassifier` is; see there."""

    _usual_loss = "mse"

    def fit(self, X: Any, y: Any) -> SixfoldRegressor:
        """Train on images and their numbers, (N,) or (N, K)."""
        images = self._images(X, fitting=True)
        try:
            numbers = np.asarray(y, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"y holds no numbers ({error}): expected (N,) or (N, K)") from error
        if numbers.ndim not in (1, 2):
            raise ValueError(f"y has shape {numbers.shape}: expected (N,) or (N, K)")
        self._is_flat = numbers.ndim == 1
        self._fit(images, numbers, STRATA)
        return self

    def predict(self, X: Any) -> NDArray[np.float32]:
        """The numbers of each image, (N,) or (N, K) as in `fit`."""
        found = self._predicted(X).values
        return found[:, 0] if self._is_flat else found


__all__ = ["SixfoldClassifier", "SixfoldRegressor"]
