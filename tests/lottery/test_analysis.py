"""Verdicts and choices, from made-up results; nothing may follow from a test accuracy."""

from typing import Any

from sixfold.lottery.config import TicketGridConfig, TicketsConfig
from sixfold.lottery.plan import Plan, plan_trellis
from sixfold.lottery.results import best_tickets, cell_figures, dense_figures
from sixfold.training.sparsity import Prunable
from sixfold.training.step.schedule import TrainingLength

LAYERS = [Prunable(name="w", kind="fc", shape=(1000,), size=1000)]
IMAGES = (10_000, 10_000)


def trellis() -> Plan:
    config = TicketsConfig(trellis=TicketGridConfig(sparsities="3", seeds=3, controls="random"))
    budget = TrainingLength(images=100, batch_size=10, total_steps=100)
    return plan_trellis(config, layers=LAYERS, budget=budget, dense={})


def run(accuracy: float, test: float, kept: int = 1000) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "test_accuracy": test,
        "early_stop_step": 50,
        "weights_sha256": "x",
        "kept": kept,
        "prunable": 1000,
        "layers": {"w": kept},
        "parameters": 1000,
    }


def test_choices_follow_from_the_validation_part_alone() -> None:
    plan = trellis()
    validation = {("ticket", 0): 0.975, ("ticket", 1): 0.970, ("ticket", 2): 0.900}
    test = {("ticket", 0): 0.5, ("ticket", 1): 0.6, ("ticket", 2): 0.99}
    results = {}
    for cell in plan.cells:
        place = (cell.kind, cell.level)
        for seed in range(3):
            noise = 0.001 * (seed - 1)
            kept = 750 - 250 * cell.level
            results[cell.member(seed)] = run(
                validation.get(place, 0.999) + noise, test.get(place, 0.1) + noise, kept
            )
    results |= {name: run(0.970 + 0.001 * k, 0.9) for k, name in enumerate(plan.dense)}
    dense = dense_figures(plan, results, run(0.969, 0.9), IMAGES)
    assert dense.accuracy.seeds == 3
    cells = cell_figures(plan, results, dense, IMAGES)
    verdicts = {cell.level: cell.verdict for cell in cells if cell.kind == "ticket"}
    assert verdicts == {0: "better", 1: "matching", 2: "below"}
    best = best_tickets(cells)
    assert best.smallest is not None
    assert best.smallest.level == 1  # the control that is better is no ticket
    assert best.most_accurate is not None
    assert best.most_accurate.level == 0
    assert {figures.early_stop_step for figures in cells} == {50}


def test_cells_without_results_are_left_out_and_no_ticket_may_match() -> None:
    plan = trellis()
    results = {plan.cells[2].member(1): run(0.1, 0.1, 10)}
    dense = dense_figures(plan, {}, run(0.9, 0.9), IMAGES)
    cells = cell_figures(plan, results, dense, IMAGES)
    assert [(cell.level, cell.verdict) for cell in cells] == [(2, "below")]
    assert best_tickets(cells).smallest is None
