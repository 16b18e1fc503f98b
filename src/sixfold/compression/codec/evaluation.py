"""How good networks in files are, computed by all ranks together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold import data as datasets
from sixfold.compression.loading import load_network
from sixfold.data.config import DataConfig
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.training.evaluate import evaluate


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    """What the launcher hands to every rank."""

    files: tuple[Path, ...]  # weights, compressed or not
    trusted: str  # the network whose code may be run
    data: DataConfig  # the data set, resolved


def evaluate_rank(job: EvaluateJob, comm: Communicator) -> list[dict[str, Any]]:
    """Evaluate all files as one rank of a process group.

    On rank 0 for each file ``<part>_accuracy``, ``<part>_loss`` and ``<part>_images`` of every
    part that has images; on the others nothing.
    """
    with one_thread():
        data = datasets.open_data(job.data)
        return [_figures(file, job, data, comm) for file in job.files]


def _figures(
    file: Path, job: EvaluateJob, data: datasets.DataSet, comm: Communicator
) -> dict[str, Any]:
    network, card = load_network(file, trusted=job.trusted)
    maker = datasets.BatchMaker(card, card.precision)
    figures: dict[str, Any] = {}
    for name in ("validation", "test"):
        part = getattr(data, name)
        found = evaluate(comm, network, part, maker) if len(part) else None
        if found is not None:
            figures[f"{name}_accuracy"] = found.accuracy
            figures[f"{name}_loss"] = found.loss
            figures[f"{name}_images"] = len(part)
    return figures
