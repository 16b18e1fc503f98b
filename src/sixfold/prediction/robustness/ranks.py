"""What every rank of a robustness evaluation does: its share of the images, under every distortion.

The evaluation is that of a training (`sixfold.training.evaluate`), over a part whose images are
distorted as they are read; so every image is distorted by the rank that classifies it, ahead of the
network, and the figures do not depend on how many ranks there are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data import DataSet, Part
from sixfold.data.dataset import Shape
from sixfold.data.pixel_sums import Sums, sums_of
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.prediction.robustness.distortions import Distortion
from sixfold.prediction.robustness.figures import proportion, variant_figures
from sixfold.prediction.scoring import ScoringJob, chosen_parts
from sixfold.training.averaged_views import with_views
from sixfold.training.evaluate import evaluate


@dataclass(frozen=True, kw_only=True)
class RobustnessJob(ScoringJob):
    """The same, and how the images are distorted."""

    images: int | None  # at most so many of each part, or None for all
    distortions: tuple[Distortion, ...]  # in the order in which figures are told
    # numbers of images, among those evaluated, whose predictions are told
    examples: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DistortedStore:
    """A `sixfold.data.dataset.Store` over a part."""

    part: Part  # where the images come from
    # class of each of its images in the network, (N,); -1 where it has none
    labels: NDArray[np.int64]
    distortion: Distortion | None  # what is done to them; nothing if None

    @property
    def shape(self) -> Shape:
        """C H W of every image."""
        return self.part.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.part.dtype

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """Of its images."""
        return self.part.targets

    @property
    def weights(self) -> None:
        """All images count the same."""
        return

    @property
    def groups(self) -> None:
        """Every image stands for itself."""
        return

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Distorted pixels, (n, C, H, W)."""
        images = self.part.images(indices)
        return images if self.distortion is None else self.distortion(images, indices)

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """Names of the images."""
        return list(self.part.names(indices))

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        """Sums over the distorted pixels."""
        return sums_of(self.images(indices))


def distorted_parts(data: DataSet, job: RobustnessJob, distortion: Distortion | None) -> list[Part]:
    """The images that are evaluated, distorted."""
    found = []
    for part in chosen_parts(data, job.part):
        labels = known_labels(part, job.labels)
        store = DistortedStore(part=part, labels=labels, distortion=distortion)
        found.append(Part(store, chosen_images(labels, job.images), part.kind))
    return found


def robustness_rank(job: RobustnessJob, comm: Communicator) -> dict[str, Any]:
    """Evaluate the clean images, then every distortion.

    On rank 0 `clean` and `distorted`, a list of figures, each with the predictions of the examples;
    on the others nothing.
    """
    with one_thread():
        network, card, data, maker = job.open()
        network = with_views(network, job.tta)
        clean: NDArray[np.int64] | None = None
        found: list[dict[str, Any]] = []
        for number, distortion in enumerate((None, *job.distortions)):
            parts = distorted_parts(data, job, distortion)
            evaluated = [evaluate(comm, network, part, maker) for part in parts]
            whole = [part for part in evaluated if part is not None]
            if not whole:
                continue
            labels = np.concatenate([part.labels for part in whole])
            predicted = np.concatenate([part.predicted for part in whole])
            clean = predicted if clean is None else clean
            loss = sum(part.loss * len(part.labels) for part in whole) / max(len(labels), 1)
            figures = variant_figures(labels, predicted, clean, loss, card.classes)
            names = [card.classes[predicted[index]] for index in job.examples]
            found.append(figures | {"examples": names})
            accuracy = proportion(figures["correct"], figures["images"])
            done = {"done": number + 1, "total": len(job.distortions) + 1}
            comm.report({"kind": "distorted", **done, **accuracy})
        return {"clean": found[0], "distorted": found[1:]} if found else {}


def known_labels(part: Part, classes: tuple[int, ...]) -> NDArray[np.int64]:
    """The network's class of each image, (N,), by that of each class of the data, or -1."""
    table = np.array([*classes, -1], np.int64)
    labels = np.where((part.labels >= 0) & (part.labels < len(classes)), part.labels, -1)
    found: NDArray[np.int64] = table[labels]
    return found


def chosen_images(labels: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Places of the images whose class is known; of many, so many evenly spaced ones."""
    known = np.flatnonzero(labels >= 0)
    if most is None or most >= len(known):
        return known
    return known[np.linspace(0, len(known) - 1, most).round().astype(np.int64)]


def one_of_each(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """All places, the first of every class before the second of any."""
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        turn[own] = np.arange(len(own))
    return np.lexsort((labels, turn))
