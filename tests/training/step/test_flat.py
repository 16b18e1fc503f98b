"""The flat state: views of payloads, and what keeps them."""

import weakref

import torch
from torch import nn

from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.training.step.flat import FlatState
from sixfold.training.step.step import Step


def test_a_payload_is_let_go_with_its_parts() -> None:
    step = Step(build(ModelConfig(model="slide"), shape=(3, 8, 8), classes=10, seed=0), seed=0)
    payload = step.new_payload()
    kept, parts = weakref.ref(payload), weakref.ref(step.state.parts(payload).buffers)
    step.state.parts(payload).gradients[0].fill_(2.0)
    assert payload[0] == 2.0
    del payload
    assert kept() is None
    assert parts() is None


def test_numbers_too_large_for_a_sum_stay_as_they_are() -> None:
    network = nn.Linear(2, 2)
    lowest = torch.finfo(torch.float32).min
    network.register_buffer("mask", torch.tensor([0.25, lowest, float("inf")]))
    state = FlatState(network)
    total = torch.zeros(sum(state.sections))
    _, buffers, _, extras = state.split(total)
    torch.mul(state.buffers, 60, out=buffers)
    extras[2] = 60
    state.move_buffers(total)
    assert network.get_buffer("mask").tolist() == [0.25, lowest, float("inf")]


def test_buffers_that_change_places_keep_their_values() -> None:
    network = nn.Linear(2, 2)
    for name, value in (("now", 1.0), ("before", 2.0)):
        network.register_buffer(name, torch.tensor(value))
    state = FlatState(network)
    network.before, network.now = network.get_buffer("now"), torch.tensor(3.0)
    state.settle()
    assert [network.get_buffer(name).item() for name in ("now", "before")] == [3.0, 1.0]
    assert state.buffers[state.buffers > 0].tolist() == [3.0, 1.0]
