"""How good a network is on a part of a data set, computed by all ranks together.

The part is cut into chunks whose size follows from the size of an image, so that every chunk is
computed with the same bits by whichever rank; losses are added in the order of the chunks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sixfold.core.random_keys import key
from sixfold.data import BatchMaker, Part, prefetch
from sixfold.data.targets import BINARY, CLASSES, MULTI_LABEL, REGRESSION
from sixfold.distributed.collectives import all_gather_int, gather
from sixfold.distributed.logical_shards import owned_shards
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import restore_randomness, save_randomness
from sixfold.models.building import seed_all
from sixfold.models.outputs import main_output, named_outputs, rebuilt
from sixfold.training.layers.operations import NO_VIEW
from sixfold.training.losses import binary, cross_entropy
from sixfold.training.losses import regression as regression_losses
from sixfold.training.losses.loss import Plain
from sixfold.training.losses.outputs import OfAllOutputs
from sixfold.training.metrics import classes, multi_label, regression
from sixfold.training.step.step import channels_last

CHUNK_ELEMENTS = 1 << 20
"""Input elements of a chunk: the activations of a few such chunks fit into memory anywhere."""
LARGEST_CHUNK = 256
MOST_SCORES = 1 << 24
"""Probabilities that are brought together; of more images and classes only the best of each."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the network says of every image of a part."""

    kind: str  # of the targets; see `sixfold.data.targets`
    loss: float  # mean over the images, without smoothing and weights
    labels: NDArray[np.int64]  # (N,) true classes; 0 where images have targets instead
    predicted: NDArray[np.int64]  # (N,) class with the largest score; 0 where there are no classes
    confidence: NDArray[np.float32]  # (N,) its probability
    in_top5: NDArray[np.bool_]  # (N,) whether the true class is among the five best
    # (N, K) of a regression, or 0 and 1 of labels; None where images have a class.
    targets: NDArray[np.float64] | None
    # (N, K) probabilities of classes or labels, or numbers; None of very many classes.
    scores: NDArray[Any] | None

    @property
    def accuracy(self) -> float | None:
        """Part of the images that were told right; None of a regression."""
        if self.kind == REGRESSION:
            return None
        if self.targets is None:
            return float((self.labels == self.predicted).mean())
        assert self.scores is not None
        return multi_label.subset_accuracy(self.targets, self.scores)

    @property
    def quality(self) -> float:
        """The larger, the better: the accuracy, or minus the loss of a regression."""
        accuracy = self.accuracy
        return -self.loss if accuracy is None else accuracy

    def metrics(self) -> dict[str, float | None]:
        """The figures of a line of `metrics.jsonl`, by name."""
        if self.kind != REGRESSION:
            return {"loss": self.loss, "accuracy": self.accuracy}
        assert self.targets is not None
        assert self.scores is not None
        return {"loss": self.loss, **regression.overall(self.targets, self.scores)}

    def summary(
        self,
        names: Sequence[str],
        images: Callable[[NDArray[np.int64]], Sequence[str]] | None = None,
        part: str = "test",
    ) -> dict[str, Any]:
        """The fields of `result.json` that follow from the predictions.

        `names` are of classes, labels or numbers; `images` gives the names of images from their
        indices; `part` ("test", or empty) begins the names of some fields.
        """
        if self.kind == REGRESSION:
            assert self.targets is not None
            assert self.scores is not None
            return regression.summarize(self.targets, self.scores, names=names, part=part)
        if self.targets is not None:
            assert self.scores is not None
            return multi_label.summarize(self.targets, self.scores, names=names, part=part)
        return classes.summarize(
            self.labels,
            self.predicted,
            self.confidence,
            self.in_top5,
            classes=names,
            names=images,
            part=part,
            scores=self.scores,
        )


def chunk_bounds(part: Part) -> list[tuple[int, int]]:
    """First and one-past-last image of every chunk of a part."""
    elements = int(np.prod(part.shape))
    size = max(min(CHUNK_ELEMENTS // elements, LARGEST_CHUNK), 1)
    return [(start, min(start + size, len(part))) for start in range(0, len(part), size)]


def scored_chunks(
    comm: Communicator, model: nn.Module, part: Part, make_batch: BatchMaker, *, last: bool = True
) -> Iterator[tuple[int, int, Tensor]]:
    """First and one-past-last image of this rank's chunks, and the network's main output, (n, K).

    With `last` images lie as N H W C, as in training, if the network can do with that.
    """
    for start, stop, value in raw_chunks(comm, model, part, make_batch, last=last):
        yield start, stop, main_output(value)


def raw_chunks(
    comm: Communicator, model: nn.Module, part: Part, make_batch: BatchMaker, *, last: bool = True
) -> Iterator[tuple[int, int, Any]]:
    """`scored_chunks` with whatever the network gives."""
    bounds = chunk_bounds(part)
    own = [bounds[chunk] for chunk in owned_shards(len(bounds), comm.size, comm.rank)]
    model.eval()
    weight = next(model.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device

    def load() -> Iterator[tuple[int, int, Tensor]]:
        for start, stop in own:
            yield start, stop, make_batch(part, np.arange(start, stop))[0]

    # Not inference_mode, in which a forward that differentiates by itself cannot.
    with torch.no_grad(), prefetch(load(), depth=2) as chunks:
        for start, stop, images in chunks:
            try:
                with _by_itself(model, start):
                    logits = model((channels_last(images) if last else images).to(device))
            except RuntimeError as error:
                if not (last and NO_VIEW in str(error)):
                    raise
                last = False
                with _by_itself(model, start):
                    logits = model(images.to(device))
            yield start, stop, _on_host(logits)


def _on_host(value: Any) -> Any:
    """A network's output on the host, in its structure."""
    if isinstance(value, Tensor):
        return value.cpu()
    return rebuilt(value, {name: each.cpu() for name, each in named_outputs(value).items()})


@contextmanager
def _by_itself(model: nn.Module, start: int) -> Iterator[None]:
    """While open, a chunk is computed: what a forward draws or moves follows from it alone.

    Else the scores would depend on the chunks that the same rank has had before.
    """
    kept = [
        (store, name, buffer, buffer.clone())
        for store in (module._buffers for module in model.modules())
        for name, buffer in store.items()
        if buffer is not None
    ]
    randomness = save_randomness()
    seed_all(key("evaluate", start))
    try:
        yield
    finally:
        restore_randomness(randomness)
        for store, name, buffer, before in kept:
            store[name] = buffer
            if not torch.equal(buffer, before):
                buffer.copy_(before)


def evaluate(
    comm: Communicator,
    model: nn.Module,
    part: Part,
    make_batch: BatchMaker,
    loss: Plain | None = None,
) -> Evaluation | None:
    """Judge a network on a labelled part with all ranks; the evaluation on rank 0, None elsewhere.

    Without `loss` what is usual for the kind of targets is reported as such.
    """
    loss = loss or usual_loss(part.kind)
    rows: list[NDArray[Any]] = []
    scores: list[NDArray[Any]] = []
    losses: list[float] = []
    for start, stop, value in raw_chunks(comm, model, part, make_batch):
        truth = torch.from_numpy(make_batch.truth(part, np.arange(start, stop)))
        outputs = main_output(value)
        losses.append(float(loss(value if isinstance(loss, OfAllOutputs) else outputs, truth)))
        found = probabilities(part.kind, outputs)
        scores.append(found.numpy())
        if part.targets is None:
            rows.append(_told(found, outputs if part.kind == CLASSES else found, truth))
    table = np.concatenate(rows) if rows else np.empty((0, 3))
    tables = gather(comm, table)
    width = max(all_gather_int(comm, scores[0].shape[1] if scores else 0))
    all_scores: list[NDArray[Any]] | None = None
    if part.targets is not None or len(part) * width <= MOST_SCORES:
        own = np.concatenate([np.empty(0), *(found.reshape(-1) for found in scores)])
        all_scores = gather(comm, own.astype(make_batch.dtype))
    all_losses = gather(comm, np.array(losses, np.float64))
    if comm.rank != 0:
        return None
    whole = np.concatenate(tables)
    if part.targets is not None:
        whole = np.zeros((len(part), 3))
    total = 0.0
    for value in np.concatenate(all_losses):
        total += float(value)
    return Evaluation(
        kind=part.kind,
        loss=total / max(len(part), 1),
        labels=part.labels,
        predicted=whole[:, 0].astype(np.int64),
        confidence=whole[:, 1].astype(np.float32),
        in_top5=whole[:, 2].astype(bool),
        targets=part.targets,
        scores=None if all_scores is None else np.concatenate(all_scores).reshape(-1, width),
    )


def usual_loss(kind: str) -> Plain:
    """What is told as loss of targets of a kind, if nobody says what was made small."""
    return {
        CLASSES: cross_entropy.plain,
        BINARY: binary.plain_binary,
        MULTI_LABEL: binary.plain_multi_label,
        REGRESSION: regression_losses.SQUARED.plain,
    }[kind]


def probabilities(kind: str, outputs: Tensor) -> Tensor:
    """What a network's outputs (n, K) say: probabilities of classes or labels, or the numbers.

    Of the one output of a network for two classes the probabilities of both are told.
    """
    if kind == CLASSES:
        return outputs.softmax(1)
    if kind == BINARY:
        second = outputs.sigmoid()
        return torch.cat([1 - second, second], 1)
    return outputs.sigmoid() if kind == MULTI_LABEL else outputs


def _told(scores: Tensor, ranked: Tensor, labels: Tensor) -> NDArray[Any]:
    """Class, its probability, and whether the true one is among the five best, (n, 3).

    `ranked` (n, K) orders the scores: outputs, of which fewer are equal.
    """
    confidence, predicted = scores.max(1)
    best = ranked.topk(min(5, ranked.shape[1]), dim=1).indices
    in_top5 = (best == labels[:, None]).any(1)
    columns = [predicted.double().numpy(), confidence.double().numpy(), in_top5.double().numpy()]
    return np.stack(columns, axis=1)
