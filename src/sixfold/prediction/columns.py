"""What a prediction writes of every image, and its figures: by the kind of the targets."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from sixfold.data import Part
from sixfold.data.targets import MULTI_LABEL, REGRESSION
from sixfold.training.evaluate import probabilities
from sixfold.training.metrics import classes as of_classes
from sixfold.training.metrics import multi_label, regression
from sixfold.training.model_card import ModelCard

SEVERAL = (MULTI_LABEL, REGRESSION)  # kinds whose images have targets instead of a class


def schema(card: ModelCard) -> pa.Schema:
    """Columns of the result.

    Of classes: file, label, true_label, confidence, score_<class> ...; of labels: file, labels,
    true_labels, score_<label> ...; of numbers: file, predicted_<name> ..., true_<name> ...
    """
    scores = [(f"score_{name}", pa.float32()) for name in card.classes]
    if card.kind == MULTI_LABEL:
        names = pa.list_(pa.string())
        columns = [("file", pa.string()), ("labels", names), ("true_labels", names), *scores]
    elif card.kind == REGRESSION:
        kinds = ("predicted", "true")
        numbers = [(f"{kind}_{name}", pa.float64()) for kind in kinds for name in card.classes]
        columns = [("file", pa.string()), *numbers]
    else:
        columns = [
            ("file", pa.string()),
            ("label", pa.string()),
            ("true_label", pa.string()),
            ("confidence", pa.float32()),
            *scores,
        ]
    return pa.schema(columns, metadata={"classes": json.dumps(card.classes)})


def table(
    card: ModelCard, labels: Sequence[int], part: Part, indices: NDArray[np.int64], outputs: Tensor
) -> pa.Table:
    """A row for each of some images.

    `labels` has for each class, or target, of the data its number in the network, or -1; `indices`
    (n,) are places in `part`, `outputs` (n, K) what the network gives for them.
    """
    names = pa.array(part.names(indices))
    scores = probabilities(card.kind, outputs)
    if card.kind in SEVERAL:
        return _targets(card, names, scores.double().numpy(), _truth(card, labels, part, indices))
    told = scores.float().numpy()
    predicted = told.argmax(1)
    truth = [_true_name(card, labels, int(label)) for label in part.labels[indices]]
    columns = [
        names,
        pa.array([card.classes[label] for label in predicted]),
        pa.array(truth, pa.string()),
        pa.array(told[np.arange(len(indices)), predicted]),
        *(pa.array(np.ascontiguousarray(column)) for column in told.T),
    ]
    return pa.Table.from_arrays(columns, schema=schema(card))


def _true_name(card: ModelCard, labels: Sequence[int], label: int) -> str | None:
    known = labels[label] if 0 <= label < len(labels) else -1
    return card.classes[known] if known >= 0 else None


def _truth(
    card: ModelCard, labels: Sequence[int], part: Part, indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What is true of images by the network's names, (n, K); NaN where that is not known."""
    found = np.full((len(indices), len(card.classes)), np.nan)
    if part.targets is None or part.kind != card.kind:
        return found
    targets = part.targets[indices]
    for place in range(targets.shape[1]):
        if labels[place] >= 0:
            found[:, labels[place]] = targets[:, place]
    return found


def _targets(
    card: ModelCard, names: pa.Array, scores: NDArray[np.float64], truth: NDArray[np.float64]
) -> pa.Table:
    if card.kind == REGRESSION:
        true = [pa.array(column, from_pandas=True) for column in truth.T]
        columns = [names, *(pa.array(np.ascontiguousarray(c)) for c in scores.T), *true]
        return pa.Table.from_arrays(columns, schema=schema(card))
    told = [_named(card, row > 0.5) for row in scores]
    known = [None if np.isnan(row).any() else _named(card, row > 0.5) for row in truth]
    kind = pa.list_(pa.string())
    columns = [
        names,
        pa.array(told, kind),
        pa.array(known, kind),
        *(pa.array(column.astype(np.float32)) for column in scores.T),
    ]
    return pa.Table.from_arrays(columns, schema=schema(card))


def _named(card: ModelCard, chosen: NDArray[np.bool_]) -> list[str]:
    return [name for name, has in zip(card.classes, chosen, strict=True) if has]


def not_finite(rows: pa.Table, card: ModelCard) -> NDArray[np.bool_]:
    """Which rows have scores, or numbers, that are infinite or no numbers."""
    start = "predicted" if card.kind == REGRESSION else "score"
    columns = [rows.column(f"{start}_{name}").to_numpy() for name in card.classes]
    found: NDArray[np.bool_] = np.logical_not(np.isfinite(np.stack(columns)).all(axis=0))
    return found


def explain_not_finite(count: int, images: int, first: str) -> str:
    """What is said of these: no class can be told from them."""
    return (
        f"the network gives numbers that are not finite for {count} of {images} images ({first} "
        "first): its weights have diverged or are damaged, or its forward divides by zero there"
    )


def outcome(rows: pa.Table, card: ModelCard) -> NDArray[Any]:
    """What figures need of each row.

    Of classes: true class (-1 if unknown), predicted class, confidence, hit among five best, and
    the scores; else the truth (NaN if unknown), and the scores or numbers.
    """

    def columns(prefix: str) -> NDArray[Any]:
        found = [rows.column(f"{prefix}_{n}").to_numpy(zero_copy_only=False) for n in card.classes]
        return np.stack(found, axis=1)

    if card.kind == REGRESSION:
        return np.concatenate([columns("true"), columns("predicted")], axis=1).astype(np.float64)
    scores = columns("score")
    if card.kind == MULTI_LABEL:
        known = rows.column("true_labels").to_pylist()
        truth = np.array(
            [[np.nan if own is None else name in own for name in card.classes] for own in known],
            np.float64,
        ).reshape(scores.shape)
        return np.concatenate([truth, scores], axis=1)
    numbers = {name: number for number, name in enumerate(card.classes)}
    true = np.array([numbers.get(name, -1) for name in rows.column("true_label").to_pylist()])
    predicted = np.array([numbers[name] for name in rows.column("label").to_pylist()])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    confidence = rows.column("confidence").to_numpy()
    hit = (best == true[:, None]).any(1)
    return np.concatenate([np.stack([true, predicted, confidence, hit], axis=1), scores], axis=1)


def figures(
    whole: NDArray[Any], card: ModelCard, names: Callable[[NDArray[np.int64]], list[str]]
) -> dict[str, Any]:
    """How good predictions are (`whole` is from `outcome`), as far as what is true is known."""
    count = len(card.classes)
    if card.kind in SEVERAL:
        labelled = np.flatnonzero(~np.isnan(whole[:, :count]).any(1))
        known = whole[labelled]
        if not len(labelled):
            return {}
        summarize = regression.summarize if card.kind == REGRESSION else multi_label.summarize
        told = summarize(known[:, :count], known[:, count:], names=card.classes, part="")
        return {"labelled_images": len(labelled), **told}
    labelled = np.flatnonzero(whole[:, 0] >= 0)
    known = whole[labelled]
    if not len(labelled):
        return {}
    return {
        "labelled_images": len(labelled),
        **of_classes.summarize(
            known[:, 0].astype(np.int64),
            known[:, 1].astype(np.int64),
            known[:, 2],
            known[:, 3].astype(bool),
            classes=card.classes,
            names=lambda indices: names(labelled[indices]),
            part="",
            scores=known[:, 4:],
        ),
    }
