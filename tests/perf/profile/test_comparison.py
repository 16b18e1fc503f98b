"""Two profiles next to each other."""

import pytest

import sixfold
from sixfold.core.errors import UserError
from sixfold.perf.profile.comparison import Pair, compared, tables
from sixfold.perf.profile.results import Layer, Profile, StepTimes
from sixfold.perf.profile.utilisation import Use


def made(conv_s: float, waiting_s: float, *, more: bool = False) -> Profile:
    layers = [
        Layer(name="conv", forward_s=conv_s / 3, backward_s=2 * conv_s / 3),
        Layer(name="pool", forward_s=1e-5, backward_s=1e-5),
    ]
    if more:
        layers.append(Layer(name="norm", forward_s=1e-3, backward_s=1e-3))
    in_steps = {"straggler": 4 * waiting_s, "data": 0.0}
    rank = Use(rank=0, host="", steps=4, seconds={}, in_steps=in_steps, cpu_share=None)
    step = StepTimes(
        plain_s=0.0,
        timing_costs_s=0.0,
        clock_s=conv_s + waiting_s,
        data_s=0.0,
        communication_s=0.0,
        waiting_s=waiting_s,
        update_s=0.0,
        unattributed_s=0.0,
        samples=20.0,
    )
    return Profile(layers=layers, step=step, utilisation=[rank])


def test_layers_and_waits_that_differ_come_first_with_their_differences() -> None:
    found = compared(made(6e-3, 1e-3), made(4e-3, 2e-3, more=True))
    assert [layer.name for layer in found.layers] == ["conv", "norm", "pool"]
    assert found.layers[1].first_s is None
    assert found.ranks == [Pair(name="0 straggler", first_s=1e-3, second_s=2e-3)]
    layers, step, ranks = tables(found)
    assert layers.rows[0] == ["conv", "6.000", "4.000", "-2.000", "-33.3"]
    assert layers.rows[1] == ["norm", "", "2.000", "+2.000", ""]
    assert layers.rows[2][0] == "1 others"
    assert ["waiting for ranks", "1.000", "2.000", "+1.000", "+100.0"] in step.rows
    assert ranks.rows[0][3:] == ["+1.000", "+100.0"]


def test_a_training_that_was_not_profiled_has_ranks_only() -> None:
    plain = made(6e-3, 1e-3)
    found = compared(Profile(utilisation=plain.utilisation), plain)
    assert tables(found)[2].rows[0][4] == "+0.0"
    assert found.layers[0].first_s is None


def test_one_profile_alone_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="Give the other one as RUN"):
        sixfold.profile(compare="runs/other")
