"""How good a network is on a part of a data set, computed by all ranks together.

The part is cut into chunks whose size follows from the size of an image, so that every chunk is
computed with the same bits by whichever rank; losses are added in the order of the chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sixfold.core.random_keys import key
from sixfold.data import BatchMaker, Part, prefetch
from sixfold.distributed.collectives import gather
from sixfold.distributed.logical_shards import owned_shards
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import restore_randomness, save_randomness
from sixfold.models.building import seed_all
from sixfold.training.layers.operations import NO_VIEW
from sixfold.training.step.step import channels_last

CHUNK_ELEMENTS = 1 << 20
"""Input elements of a chunk: the activations of a few such chunks fit into memory anywhere."""
LARGEST_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the network says of every image of a part.

    Attributes:
        labels: (N,) true classes.
        predicted: (N,) class with the largest score.
        confidence: (N,) its softmax probability.
        in_top5: (N,) whether the true class is among the five best.
        loss: mean cross-entropy.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    in_top5: NDArray[np.bool_]
    loss: float

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified right."""
        return float((self.labels == self.predicted).mean())


def chunk_bounds(part: Part) -> list[tuple[int, int]]:
    """First and one-past-last image of every chunk of a part."""
    elements = int(np.prod(part.shape))
    size = max(min(CHUNK_ELEMENTS // elements, LARGEST_CHUNK), 1)
    return [(start, min(start + size, len(part))) for start in range(0, len(part), size)]


def scored_chunks(
    comm: Communicator, model: nn.Module, part: Part, make_batch: BatchMaker, *, last: bool = True
) -> Iterator[tuple[int, int, Tensor]]:
    """Run the network over this rank's chunks of a part.

    Args:
        comm: the ranks that share the work.
        model: the network.
        part: the images.
        make_batch: reads and normalises them.
        last: lay them out as N H W C, as in training; if the network can do with that.

    Yields:
        First and one-past-last image of the chunk, and the logits, (n, classes), on the host.
    """
    bounds = chunk_bounds(part)
    own = [bounds[chunk] for chunk in owned_shards(len(bounds), comm.size, comm.rank)]
    model.eval()
    weight = next(model.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device

    def load() -> Iterator[tuple[int, int, Tensor]]:
        for start, stop in own:
            yield start, stop, make_batch(part, np.arange(start, stop))[0]

    with torch.inference_mode(), prefetch(load(), depth=2) as chunks:
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
            yield start, stop, logits.cpu()


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
    comm: Communicator, model: nn.Module, part: Part, make_batch: BatchMaker
) -> Evaluation | None:
    """Classify a labelled part with all ranks.

    Returns:
        The evaluation on rank 0, None on the others.
    """
    rows: list[NDArray[Any]] = []
    losses: list[float] = []
    labels = torch.from_numpy(part.labels)
    for start, stop, logits in scored_chunks(comm, model, part, make_batch):
        truth = labels[start:stop]
        loss = nn.functional.cross_entropy(logits, truth, reduction="sum")
        losses.append(float(loss))
        confidence, predicted = logits.softmax(1).max(1)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        in_top5 = (best == truth[:, None]).any(1)
        rows.append(
            np.stack(
                [predicted.double().numpy(), confidence.double().numpy(), in_top5.double().numpy()],
                axis=1,
            )
        )
    table = np.concatenate(rows) if rows else np.empty((0, 3))
    tables = gather(comm, table)
    all_losses = gather(comm, np.array(losses, np.float64))
    if comm.rank != 0:
        return None
    whole = np.concatenate(tables)
    total = 0.0
    for loss in np.concatenate(all_losses):
        total += float(loss)
    return Evaluation(
        labels=part.labels,
        predicted=whole[:, 0].astype(np.int64),
        confidence=whole[:, 1].astype(np.float32),
        in_top5=whole[:, 2].astype(bool),
        loss=total / max(len(part), 1),
    )
