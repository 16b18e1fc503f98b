"""Evaluation by several ranks against one plain pass."""

import numpy as np
import pytest
import torch
from torch import nn

from sixfold.data import BatchMaker, open_data
from sixfold.data.config import DataConfig
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.training.evaluate import chunk_bounds, evaluate


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.BatchNorm1d(20), nn.Linear(20, 10))


def job(comm: Communicator) -> list[object] | None:
    data = open_data(DataConfig(data="synthetic:2000x3x4x4"))
    found = evaluate(comm, network(), data.train, BatchMaker(data))
    if found is None:
        return None
    return [found.loss, found.predicted.tolist(), found.in_top5.tolist(), found.accuracy]


@pytest.mark.parametrize("size", [2, 3, 9])
def test_any_number_of_ranks_says_the_same(size: int) -> None:
    engine = InlineEngine()
    alone = engine.run_ranks(job, 1).results[0]
    results = engine.run_ranks(job, size).results
    assert results[0] == alone
    assert results[1:] == [None] * (size - 1)


def test_loss_and_classes_are_those_of_a_plain_pass() -> None:
    data = open_data(DataConfig(data="synthetic:2000x3x4x4"))
    images, labels = BatchMaker(data)(data.train, np.arange(2000))
    with torch.inference_mode():
        logits = network().eval()(images)
    loss, predicted, in_top5, accuracy = InlineEngine().run_ranks(job, 2).results[0]
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-6)
    assert predicted == logits.argmax(1).tolist()
    best = logits.topk(5, dim=1).indices
    assert in_top5 == (best == labels[:, None]).any(1).tolist()
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def test_chunks_cover_the_part_and_shrink_with_the_images() -> None:
    small = open_data(DataConfig(data="synthetic:1000x1x8x8")).train
    large = open_data(DataConfig(data="synthetic:1000x3x256x256")).train
    for part in (small, large):
        bounds = chunk_bounds(part)
        assert [place for a, b in bounds for place in range(a, b)] == list(range(1000))
    assert chunk_bounds(small)[0] == (0, 256)
    assert chunk_bounds(large)[0] == (0, 5)
