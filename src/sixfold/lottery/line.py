"""How unstable a ticket is: the error along the straight line between two trainings of it.

Both begin with the same weights under the same mask and differ in the order of the data. With w0
and w1 their final weights, the error barrier is

    max over a in [0, 1] of  E((1 - a) w0 + a w1)   -   (E(w0) + E(w1)) / 2

and a ticket is stable to the noise of SGD where that is close to 0: linear mode connectivity
(Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020, who call
it instability and find that stable tickets are those that match the dense network).

Departures: the error is taken on the validation part, since nothing may be chosen on the test set.
The running statistics of batch-norm, which belong to no point between the ends, are computed anew
at every point, ends included, from the same training images.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sixfold import data as datasets
from sixfold.distributed.process_group import alone
from sixfold.distributed.tasks import Assignment
from sixfold.training.config import TrainConfig
from sixfold.training.evaluate import evaluate
from sixfold.training.model_card import read_card, weights_file
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.step.norm_sync import has_batch_norm

CALIBRATION_IMAGES = 2048
CALIBRATION_BATCH = 256


def measure_line(config: TrainConfig, assignment: Assignment) -> dict[str, Any]:
    """`errors` at even points of the line between two members, and `instability`, their barrier."""
    first, second = (weights_file(folder) for folder in assignment.dependencies.values())
    data = datasets.open_data(config.data)
    card = read_card(first, trust=True).of(config.model)
    network = card.build()
    make_batch = datasets.BatchMaker(
        data, "float64" if config.training.precision == "float64" else "float32"
    )
    calibration = _calibration(network, data, make_batch)
    ends = read_weights(first), read_weights(second)
    errors: list[float] = []
    points = int(assignment.settings["points"])
    for number in range(points):
        between(network, *ends, number / (points - 1))
        recalibrate(network, calibration)
        found = evaluate(alone(), network, data.validation, make_batch)
        assert found is not None, "rank 0 has the evaluation"
        errors.append(1 - found.quality)
        assignment.report_progress(part=(number + 1) / points)
    return {"errors": errors, "instability": barrier(errors)}


def barrier(errors: list[float]) -> float:
    """How far the greatest error lies above the mean of the two ends.

    >>> round(barrier([0.1, 0.4, 0.2]), 6)
    0.25
    """
    return max(errors) - (errors[0] + errors[-1]) / 2


def between(
    network: nn.Module, start: dict[str, Tensor], end: dict[str, Tensor], place: float
) -> None:
    """Put (1 - place) start + place end into a network; integer buffers are the start's."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_((1 - place) * start[name] + place * end[name])
            else:
                tensor.copy_(start[name])


def _calibration(
    network: nn.Module, data: datasets.DataSet, make_batch: datasets.BatchMaker
) -> list[Tensor]:
    """Training images from which statistics are computed; none if the network needs none."""
    if not has_batch_norm(network):
        return []
    chosen = datasets.permutation(0, 0, len(data.train))[:CALIBRATION_IMAGES]
    batches = np.array_split(chosen, max(len(chosen) // CALIBRATION_BATCH, 1))
    return [make_batch(data.train, batch)[0] for batch in batches]


def recalibrate(network: nn.Module, batches: list[Tensor]) -> None:
    """Compute the running statistics of batch-norm anew: their mean over `batches`."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not batches or not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain mean over all batches
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
