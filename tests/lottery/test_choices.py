import dataclasses

import pytest

from sixfold.core.errors import UserError
from sixfold.lottery.choices import (
    parse_rates,
    parse_rewinds,
    parse_thresholds,
    quantiles,
    trellis_problems,
)
from sixfold.lottery.config import TicketDataConfig, TicketGridConfig, TicketsConfig
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.schedule import TrainingLength

BUDGET = TrainingLength(images=1000, batch_size=100, total_steps=50)


def test_thresholds_are_a_number_or_a_list() -> None:
    assert parse_thresholds("20") == 20
    assert parse_thresholds("0.8") == [0.8]
    assert parse_thresholds("80%,0.2,20%") == [0.2, 0.8]
    assert quantiles(3) == [0.25, 0.5, 0.75]


def test_rewinds_are_steps_or_epochs() -> None:
    assert parse_rewinds("0,0.5ep,2ep,30", BUDGET) == [0, 5, 20, 30]


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "infep", "-1ep", "nanep"])
def test_other_rewinds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="neither a step"):
        parse_rewinds(text, BUDGET)


def test_a_rewind_point_lies_within_the_dense_run() -> None:
    with pytest.raises(UserError, match=r"step 50 does not lie before the end .* 50 steps"):
        parse_rewinds("5ep", BUDGET)


@pytest.mark.parametrize("text", ["0", "", "1.0", "0.5,2", "a", "0.5,0", "-0.1"])
def test_other_thresholds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--sparsities"):
        parse_thresholds(text)


@pytest.mark.parametrize("text", ["fc", "fc=1", "fc=-0.1", "dense=0.2", "fc=x"])
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--rates"):
        parse_rates(text)


def test_all_problems_are_told_at_once() -> None:
    trellis = TicketGridConfig(
        sparsities="0", rewinds="x", rates="y=1", controls="best", seeds=0, instability=3
    )
    data = dataclasses.replace(TicketDataConfig(), validation=0.0)
    found = TicketsConfig(trellis=trellis, data=data).problems()
    assert [line.split()[0] for line in found] == [
        "--seeds",
        "--sparsities",
        "--rewinds",
        "--rates",
        "--controls",
        "--instability",
        "--validation",
    ]
    assert trellis_problems(TicketsConfig()) == []


def test_masks_need_an_update_that_works_element_by_element() -> None:
    for optimizer, said in (
        (OptimizerConfig(optimizer="muon"), "--optimizer muon: not for tickets"),
        (OptimizerConfig(schedule="plateau:3"), "--schedule plateau:3: not for tickets"),
    ):
        assert any(said in line for line in TicketsConfig(optimizer=optimizer).problems())
    plain = TicketsConfig(optimizer=OptimizerConfig(optimizer="adamw")).problems()
    assert not any("not for tickets" in line for line in plain)
