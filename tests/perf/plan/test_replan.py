"""What a training's own steps tell of the plan."""

from __future__ import annotations

from typing import Any

import pytest

from sixfold.perf.plan.replan import MOST_CHANGES, look_again


def way(workers: int, own_s: float, together_s: float = 0.0, **more: Any) -> dict[str, Any]:
    step_s = own_s + together_s
    times = {"batch_s": step_s, "mean_s": step_s, "low_s": 0.9 * step_s, "high_s": 1.1 * step_s}
    parts = {"compute_s": own_s, "exchange_s": 0.8 * together_s, "waiting_s": 0.2 * together_s}
    return {"strategy": "sync", "workers": workers, "fits": True, **times, **parts, **more}


WAYS = [way(1, 0.016), way(2, 0.008, 0.001), way(4, 0.004, 0.002)]


def plan_for(workers: int) -> dict[str, Any]:
    return {"chosen": next(w for w in WAYS if w["workers"] == workers), "ways": WAYS}


def steps_took(own_s: float, exchange_s: float = 0.0, waiting_s: float = 0.0) -> dict[str, Any]:
    parts = {"compute_s": own_s, "update_s": 0.0, "data_s": 0.0}
    parts |= {"communication_s": exchange_s, "waiting_s": waiting_s}
    return {"steps": 60, "deviation": {"step_s": sum(parts.values()), **parts}}


def test_a_link_that_is_slower_leaves_fewer_ranks() -> None:
    found = look_again(plan_for(4), 4, steps_took(0.004, exchange_s=0.014))
    assert found["chosen"]["workers"] == 2  # 8 + 7 ms; alone it would be 16
    found = look_again(plan_for(4), 4, steps_took(0.004, exchange_s=0.030))
    assert found["chosen"]["workers"] == 1
    assert "a slower link" in found["looks"][0]["text"]


def test_cores_that_others_use_are_left_to_them() -> None:
    found = look_again(plan_for(4), 4, steps_took(0.024, waiting_s=0.006))
    assert found["chosen"]["workers"] == 1  # a single core is free
    assert found["chosen"]["batch_s"] < 0.030
    text = found["looks"][0]["text"]
    assert "own work takes 24 ms instead of 4 ms" in text
    assert "busy with something else" in text


def test_quicker_links_take_more_ranks() -> None:
    slow = [way(1, 0.016), way(2, 0.008, 0.007), way(4, 0.004, 0.014)]
    found = look_again({"chosen": slow[1], "ways": slow}, 4, steps_took(0.008, exchange_s=0.0007))
    assert found["chosen"]["workers"] == 4
    assert "a quicker link" in found["looks"][0]["text"]


def test_what_was_seen_counts_more_than_what_is_predicted() -> None:
    found = look_again(plan_for(4), 4, steps_took(0.024, waiting_s=0.006))
    assert found["chosen"]["workers"] == 1
    worse = {"steps": 120, "deviation": steps_took(0.048)["deviation"]}
    found = look_again(found, 4, worse)
    assert found["chosen"]["workers"] == 4  # 30 ms were seen there
    assert [(look["step"], look["then"]) for look in found["looks"]] == [(60, 1), (120, 4)]


def test_changes_end() -> None:
    found, seconds = plan_for(4), 0.024
    for _ in range(MOST_CHANGES + 3):
        seconds *= 3
        found = look_again(found, 4, steps_took(seconds, waiting_s=seconds / 3))
    changes = [look for look in found["looks"] if look["workers"] != look["then"]]
    assert len(changes) == MOST_CHANGES
    assert found["looks"][-1]["then"] == found["chosen"]["workers"]
    low_s, high_s = found["chosen"]["low_s"], found["chosen"]["high_s"]
    assert low_s < seconds * 4 / 3 < high_s  # it is not told again
    assert "after 3 changes" in found["looks"][-1]["text"]


@pytest.mark.parametrize("strategy", ["model_parallel", "hogwild"])
def test_a_way_without_others_of_the_same_bits_is_kept(strategy: str) -> None:
    chosen = way(2, 0.008, 0.001, strategy=strategy)
    found = look_again({"chosen": chosen, "ways": [*WAYS, chosen]}, 2, steps_took(0.1))
    assert (found["chosen"]["strategy"], found["chosen"]["workers"]) == (strategy, 2)
    assert "nothing else has the same bits" in found["looks"][0]["text"]
