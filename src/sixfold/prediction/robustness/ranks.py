"""What every rank of a robustness evaluation does: its share of the images, under every distortion.

The evaluation is that of a training (`sixfold.training.evaluate`), over a part whose images are
distorted as they are read; so every image is distorted by the rank that classifies it, ahead of the
network, and the figures do not depend on how many ranks there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold import data as datasets
from sixfold.compression.loading import load_network
from sixfold.data.config import DataConfig
from sixfold.data.dataset import Part
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.prediction.robustness.distorted import DistortedStore, chosen_images, known_labels
from sixfold.prediction.robustness.distortions import Distortion
from sixfold.prediction.robustness.figures import proportion, variant_figures
from sixfold.prediction.worker import chosen_parts
from sixfold.training.evaluate import evaluate


@dataclass(frozen=True, kw_only=True)
class RobustnessJob:
    """What the launcher hands to every rank."""

    weights: Path
    trusted: str  # the network whose code may be run
    data: DataConfig  # the data set, resolved
    part: str  # "test", "train" or "all"
    images: int | None  # at most so many of each part, or None for all
    # for each class of the data its class of the network, -1 where it has none
    labels: tuple[int, ...]
    distortions: tuple[Distortion, ...]  # in the order in which figures are told
    # numbers of images, among those evaluated, whose predictions are told
    examples: tuple[int, ...] = ()


def distorted_parts(
    data: datasets.DataSet, job: RobustnessJob, distortion: Distortion | None
) -> list[Part]:
    """The images that are evaluated, distorted."""
    found = []
    for part in chosen_parts(data, job.part):
        labels = known_labels(part, job.labels)
        store = DistortedStore(part=part, labels=labels, distortion=distortion)
        found.append(Part(store, chosen_images(labels, job.images)))
    return found


def robustness_rank(job: RobustnessJob, comm: Communicator) -> dict[str, Any]:
    """Evaluate the clean images, then every distortion.

    On rank 0 `clean` and `distorted`, a list of figures, each with the predictions of the examples;
    on the others nothing.
    """
    with one_thread():
        network, card = load_network(job.weights, trusted=job.trusted)
        data = datasets.open_data(job.data)
        maker = datasets.BatchMaker(
            card.statistics(), "float64" if card.precision == "float64" else "float32"
        )
        clean: NDArray[np.int64] | None = None
        found: list[dict[str, Any]] = []
        for number, distortion in enumerate((None, *job.distortions)):
            evaluated = [
                evaluate(comm, network, part, maker)
                for part in distorted_parts(data, job, distortion)
            ]
            whole = [part for part in evaluated if part is not None]
            if not whole:
                continue
            labels = np.concatenate([part.labels for part in whole])
            predicted = np.concatenate([part.predicted for part in whole])
            clean = predicted if clean is None else clean
            loss = sum(part.loss * len(part.labels) for part in whole) / max(len(labels), 1)
            figures = variant_figures(labels, predicted, clean, loss, card.classes)
            found.append(figures | {"examples": _names(predicted, job.examples, card.classes)})
            comm.report(
                {
                    "kind": "distorted",
                    "done": number + 1,
                    "total": len(job.distortions) + 1,
                    **proportion(figures["correct"], figures["images"]),
                }
            )
        return {"clean": found[0], "distorted": found[1:]} if found else {}


def _names(
    predicted: NDArray[np.int64], examples: Sequence[int], classes: Sequence[str]
) -> list[str]:
    return [classes[predicted[index]] for index in examples]
