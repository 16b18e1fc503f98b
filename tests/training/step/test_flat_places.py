"""The flat state notices tensors that a forward has moved out of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sixfold.core.errors import UserError
from sixfold.training.step.flat import FlatState


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_a_parameter_in_other_memory_is_named() -> None:
    changes: tuple[Callable[[Any], None], ...] = (
        lambda made: setattr(made[0].weight, "data", made[0].weight.data.clone()),
        lambda made: setattr(made[0], "weight", nn.Parameter(made[0].weight.detach().clone())),
    )
    for change in changes:
        made = network()
        state = FlatState(made)
        state.check_places()
        change(made)
        with pytest.raises(UserError, match=r"gives the parameter '0\.weight' other memory"):
            state.check_places()


def test_a_parameter_that_is_changed_in_place_is_where_it_was() -> None:
    made = network()
    state = FlatState(made)
    with torch.no_grad():
        made[0].weight.fill_(7.0)
    state.check_places()
    assert state.parameters[:12].eq(7.0).all()


def test_an_assigned_buffer_is_moved_back_with_its_values() -> None:
    made = network()
    state = FlatState(made)
    before = state.buffers.clone()
    made[1].running_mean = 0.5 * made[1].running_mean + 3.0
    assert torch.equal(state.buffers, before)
    state.settle()
    assert not torch.equal(state.buffers, before)
    assert made[1].running_mean.eq(3.0).all()
    made[1].running_mean.add_(1.0)
    assert int(state.buffers.eq(4.0).sum()) == 4
    state.settle()  # nothing is left to be moved
    assert int(state.buffers.eq(4.0).sum()) == 4


@pytest.mark.parametrize(
    "value", [torch.zeros(5), torch.zeros(4, dtype=torch.float64), None], ids=str
)
def test_a_buffer_of_another_kind_is_refused(value: torch.Tensor | None) -> None:
    made = network()
    state = FlatState(made)
    made[1].running_mean = value
    with pytest.raises(UserError, match=r"BatchNorm1d removes the buffer 'running_mean'"):
        state.settle()
