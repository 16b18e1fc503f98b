from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.distributed.tasks import cache_keys
from sixfold.lottery.config import TicketGridConfig, TicketsConfig
from sixfold.lottery.plan import Cell, Plan, level_sparsities, plan_trellis
from sixfold.training.sparsity import Prunable
from sixfold.training.step.schedule import TrainingLength

LAYERS = [
    Prunable(name="fc1", kind="fc", shape=(300, 784), size=235_200),
    Prunable(name="fc2", kind="fc", shape=(100, 300), size=30_000),
    Prunable(name="fc3", kind="output", shape=(10, 100), size=1_000),
]
BUDGET = TrainingLength(images=1000, batch_size=100, total_steps=100)


def plan(**trellis: Any) -> Plan:
    config = TicketsConfig(trellis=TicketGridConfig(**trellis))
    return plan_trellis(config, layers=LAYERS, budget=BUDGET, dense={"weights": "abc"})


def test_a_trellis_has_every_sparsity_at_every_rewind_point() -> None:
    found = plan(sparsities="3", rewinds="0,20", seeds=2, controls="random,reinit")
    assert len(found.cells) == 3 * 2 * 3
    assert len(found.members) == 3 * 2 * 3 * 2 + 1
    assert found.dense == ["dense @0 seed 1"]
    assert all(not member.dependencies for member in found.members)
    assert {member.cost for member in found.members} == {100.0, 80.0}
    names = {member.name for member in found.members}
    assert all(cell.member(seed) in names for cell in found.cells for seed in range(2))


def test_fresh_weights_of_one_shot_masks_do_not_depend_on_the_rewind_point() -> None:
    found = plan(sparsities="3", rewinds="0,20", controls="reinit")
    own = cache_keys(found.members)
    assert len(own) == 12
    assert len(set(own.values())) == 9


def test_iterative_levels_need_the_ticket_before_in_their_own_chain() -> None:
    found = plan(sparsities="3", rewinds="0,20", seeds=2, controls="random", method="iterative")
    by_name = {member.name: member for member in found.members}
    for cell in found.cells:
        for seed in range(2):
            needs = by_name[cell.member(seed)].dependencies
            before = Cell(kind="ticket", level=cell.level - 1, rewind=cell.rewind)
            assert needs == ((before.member(seed),) if cell.level else ())


@pytest.mark.parametrize("method", ["one-shot", "iterative"])
def test_a_line_needs_two_trainings_under_one_mask(method: str) -> None:
    found = plan(sparsities="2", seeds=2, method=method, instability=11)
    by_name = {member.name: member for member in found.members}
    own = cache_keys(found.members)
    for cell, name in found.lines.items():
        first, second = (by_name[need] for need in by_name[name].dependencies)
        assert first.dependencies == second.dependencies
        assert (first.settings["seed"], second.settings["seed"]) == (0, 1)
        # In one-shot pruning the second seed of the cell is that other training.
        same = own[second.name] == own[cell.member(1)]
        assert same == (method == "one-shot" or cell.level == 0)


def test_rounds_at_the_paper_s_rates() -> None:
    trellis = TicketGridConfig(sparsities="15", method="iterative", rates="fc=0.2,output=0.1")
    found = level_sparsities(TicketsConfig(trellis=trellis), LAYERS)
    kept = [round(100 * (1 - sparsity), 1) for sparsity in found]
    # The paper's table: 51.3, 21.1, 7.0 and 3.6% after 3, 7, 12 and 15 rounds.
    assert [kept[k - 1] for k in (3, 7, 12, 15)] == [51.3, 21.1, 7.0, 3.6]


def test_a_sparsity_that_rates_forbid_is_refused() -> None:
    with pytest.raises(UserError, match="never pruned"):
        plan(sparsities="0.9", rates="fc=0")
