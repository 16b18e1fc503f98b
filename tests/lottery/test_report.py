"""The report of a made-up search: what it shows, and that nothing in it can break out of it."""

from typing import Any

from sixfold.core.run_directory import as_json, typed
from sixfold.lottery.config import TicketsConfig
from sixfold.lottery.report import heat_maps, render, ticket_lines
from sixfold.lottery.results import Found


def value(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "seeds": 3}


def cell(kind: str, level: int, rewind: int, test: float, verdict: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "level": level,
        "rewind": rewind,
        "sparsity": (0.5, 0.9)[level],
        "kept": (500, 100)[level],
        "prunable": 1000,
        "accuracy": value(test),
        "test_accuracy": value(test),
        "difference": value(test - 0.9),
        "early_stop_step": 10.0 * level + 5,
        "verdict": verdict,
        "instability": 0.02 * level,
    }


def result(**more: Any) -> dict[str, Any]:
    cells = [
        cell("ticket", 0, 0, 0.91, "better"),
        cell("ticket", 1, 0, 0.90, "matching"),
        cell("ticket", 0, 7, 0.92, "better"),
        cell("ticket", 1, 7, 0.70, "below"),
        cell("random", 1, 0, 0.50, "below"),
    ]
    times = {"one_worker_s": 10.0, "all_workers_s": 6.0, "speedup": 1.67, "efficiency": 0.83}
    return {
        "dense": {"accuracy": value(0.9), "test_accuracy": value(0.9), "parameters": 1100}
        | {"early_stop_step": 8.0},
        "cells": cells,
        "best": {"smallest": cells[1], "most_accurate": cells[2]},
        "sparsities": [0.5, 0.9],
        "rewinds": [0, 7],
        "steps": 20,
        "speedup": {"expected": times, "measured": times},
        "failures": {},
        "members": 5,
        "workers": 2,
        "wall_s": 6.5,
        "versions": {"torch": "2"},
    } | more


def test_heat_maps_hold_every_cell_and_mark_the_best() -> None:
    tickets, random = heat_maps(typed(Found, result()))
    assert tickets.columns == ["50%", "10%"]
    assert [label for label, _ in tickets.rows] == ["0", "7"]
    shown = [[found.text if found else None for found in row] for _, row in tickets.rows]
    assert shown == [["91.0", "90.0"], ["92.0", "70.0"]]
    best = ["best" in found.css for _, row in tickets.rows for found in row if found]
    assert best == [False, True, False, False]
    strengths = [found.strength or 0.0 for _, row in tickets.rows for found in row if found]
    assert max(strengths) == strengths[2] == 1.0
    assert [found and found.text for _, row in random.rows for found in row] == ["50.0", None]


def test_the_terminal_shows_the_tables_of_the_page() -> None:
    lines = ticket_lines(result() | {"report": "report.html"})
    (dense,) = (line for line in lines if line.startswith("dense"))
    (random,) = (line for line in lines if line.startswith("random"))
    assert dense.split()[1:3] == ["100%", "1,100"]
    assert "below" in random
    assert "Smallest matching ticket: 10%" in "\n".join(lines)


def test_the_page_has_charts_tables_and_no_foreign_markup() -> None:
    config = as_json(TicketsConfig())
    config["data"]["data"] = "folder:<script>alert(1)</script>"
    failed = {"<b>ticket</b>": "it & that"}
    page = render("<i>job</i>", config, result(failures=failed))
    assert "<i>job</i>" not in page
    assert "<b>ticket</b>" not in page
    assert "<script>alert" not in page
    assert page.count("<svg ") == 4
    assert "not finished" in page
    assert 'class="changed"' in page  # the data
    assert page.count('class="changed"') == 1


def test_a_search_with_one_cell_and_none_matching_is_shown() -> None:
    alone = [cell("ticket", 1, 0, 0.3, "below")]
    found = result(cells=alone, rewinds=[0], best={"smallest": None, "most_accurate": alone[0]})
    page = render("job", as_json(TicketsConfig()), found)
    assert "no ticket is shown to match the dense network" in page


def test_a_ticket_of_which_nothing_is_left_is_shown() -> None:
    nothing = cell("ticket", 1, 0, 0.1, "below") | {"kept": 0}
    for cells in ([nothing], [cell("ticket", 0, 0, 0.9, "matching"), nothing]):
        found = result(cells=cells, rewinds=[0], best={"smallest": None, "most_accurate": nothing})
        page = render("job", as_json(TicketsConfig()), found)
        assert "nan" not in page.partition("<svg ")[2].partition("</svg>")[0]
