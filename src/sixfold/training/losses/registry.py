"""The losses: one row each. What needs torch is imported when a loss is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError
from sixfold.data.config import DataConfig
from sixfold.data.targets import AUTO, BINARY, CLASSES, MULTI_LABEL, REGRESSION, describe
from sixfold.training.losses.config import BALANCED, LossConfig
from sixfold.training.losses.weights import (
    balanced_classes,
    balanced_labels,
    class_weights,
    read_class_weights,
)

if TYPE_CHECKING:
    from sixfold.data import DataSet
    from sixfold.training.losses.loss import Loss


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """A loss by name."""

    kind: str  # of targets that it takes, one of `sixfold.data.targets`
    build: Callable[[LossConfig, DataSet], Loss]
    options: tuple[str, ...] = ()  # settings of `LossConfig` that it knows, besides its name


def _cross_entropy(config: LossConfig, _: DataSet) -> Loss:
    from sixfold.training.losses import cross_entropy

    return cross_entropy.make(config.label_smoothing)


def _binary(_config: LossConfig, _: DataSet) -> Loss:
    from sixfold.training.losses import binary

    return binary.BINARY


def _multi_label(config: LossConfig, data: DataSet) -> Loss:
    import torch

    from sixfold.training.losses import binary

    if not config.class_weights:
        return binary.make_multi_label()
    assert data.train.targets is not None, "checked by `fit_problems`"
    balanced = balanced_labels(data.train.targets)
    weights = class_weights(config.class_weights, data.classes, balanced)
    return binary.make_multi_label(torch.from_numpy(weights))


def _mse(_config: LossConfig, _: DataSet) -> Loss:
    from sixfold.training.losses import regression

    return regression.SQUARED


def _l1(_config: LossConfig, _: DataSet) -> Loss:
    from sixfold.training.losses import regression

    return regression.ABSOLUTE


def _huber(config: LossConfig, _: DataSet) -> Loss:
    from sixfold.training.losses import regression

    return regression.make_huber(config.huber_delta)


LOSSES: dict[str, LossSpec] = {
    "cross_entropy": LossSpec(
        kind=CLASSES, build=_cross_entropy, options=("label_smoothing", "class_weights")
    ),
    "binary": LossSpec(kind=BINARY, build=_binary, options=("class_weights",)),
    "multi_label": LossSpec(kind=MULTI_LABEL, build=_multi_label, options=("class_weights",)),
    "mse": LossSpec(kind=REGRESSION, build=_mse),
    "l1": LossSpec(kind=REGRESSION, build=_l1),
    "huber": LossSpec(kind=REGRESSION, build=_huber, options=("huber_delta",)),
}

_OF_SOME = ("label_smoothing", "huber_delta", "class_weights")  # settings that not every loss knows


def loss_problems(config: LossConfig) -> list[str]:
    """What is wrong with the settings, whatever the data; one line each."""
    name, found = config.loss, []
    if name not in LOSSES and ":" not in name:
        own = "your own is written package.module:function"
        return [f"--loss {name}: {unknown('loss', name, LOSSES)}; {own}"]
    known = LOSSES[name].options if name in LOSSES else ("class_weights",)
    usual = LossConfig.__dataclass_fields__
    for option in _OF_SOME:
        value = getattr(config, option)
        if option not in known and value != usual[option].default:
            takers = [other for other, spec in LOSSES.items() if option in spec.options]
            found.append(
                f"--{option.replace('_', '-')} {value}: only for --loss {', '.join(takers)}, not "
                f"{name}"
            )
    if config.class_weights and config.class_weights != BALANCED:
        try:
            read_class_weights(config.class_weights)
        except UserError as error:
            found += error.problems
    return found


def with_target(config: DataConfig, loss: LossConfig) -> DataConfig:
    """The data, read as the loss takes them, where nothing else is asked for."""
    if config.target != AUTO or loss.loss not in LOSSES:
        return config
    return dataclasses.replace(config, target=LOSSES[loss.loss].kind)


def accuracy_problems(kind: str, what: str) -> list[str]:
    """Why what compares accuracies cannot be done with targets of a kind; empty if it can."""
    if kind not in (MULTI_LABEL, REGRESSION):
        return []
    return [
        f"{what}: compares accuracies, and networks for {describe(kind)} have none: it takes "
        "networks for classes (--loss cross_entropy or binary)"
    ]


def fit_problems(config: LossConfig, data: DataSet) -> list[str]:
    """Why the loss cannot be used with the data, one line each."""
    spec = LOSSES.get(config.loss)
    if spec is not None and spec.kind != data.kind:
        fitting = [name for name, other in LOSSES.items() if other.kind == data.kind]
        return [
            f"--loss {config.loss}: needs {describe(spec.kind)}, but {data.name} has "
            f"{describe(data.kind)}: give --loss {' or '.join(fitting)}"
        ]
    if not config.class_weights:
        return []
    if data.kind == REGRESSION or (spec is None and data.kind == MULTI_LABEL):
        return [
            f"--class-weights {config.class_weights}: {describe(data.kind)} have no classes; leave "
            "it out"
        ]
    try:
        class_weights(config.class_weights, data.classes, np.ones(len(data.classes)))
    except UserError as error:
        return list(error.problems)
    return []


def build_loss(config: LossConfig, data: DataSet) -> Loss:
    """The loss of a training, whose settings are settled (`sixfold.training.losses.settling`)."""
    several = bool(config.aux_weight)
    if config.loss in LOSSES:
        loss = LOSSES[config.loss].build(config, data)
        if not several:
            return loss
        from sixfold.training.losses.outputs import read_aux_weights, with_heads

        return with_heads(loss, read_aux_weights(config.aux_weight))
    from sixfold.training.losses import binary, cross_entropy, own
    from sixfold.training.losses.outputs import own_of_all

    function = own.find_loss(config.loss)
    scores = {CLASSES: cross_entropy.right, BINARY: binary.right, MULTI_LABEL: binary.all_right}
    score = scores.get(data.kind)
    return own_of_all(function, score) if several else own.make(function, score)


def sample_weights(config: LossConfig, data: DataSet) -> NDArray[np.float64] | None:
    """How much each training image counts, (N,); None if all count the same."""
    part = data.train
    own = part.weights
    if not config.class_weights or data.kind not in (CLASSES, BINARY):
        return own
    balanced = balanced_classes(part.labels, len(data.classes))
    by_class = class_weights(config.class_weights, data.classes, balanced)[part.labels]
    return by_class if own is None else own * by_class
