"""`sixfold plan --to`, and what runs cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.core.settings import build_tree
from sixfold.perf.plan.config import PlanConfig
from sixfold.perf.plan.run import plan, plan_problems

SETTINGS: dict[str, Any] = {
    "data": "digits",
    "model": "lenet300",
    "batch_size": 32,
    "epochs": 10.0,
    "lr": 0.05,
    "workers": 2,
    "engine": "local",
    "validation": 0.2,
}


def problems(**options: Any) -> list[str]:
    return plan_problems(build_tree(PlanConfig, SETTINGS | options))


def test_everything_that_is_wrong_is_told() -> None:
    found = problems(to="acuracy=0.9", probe="soon", batch_sizes="10,x", validation=0.0)
    assert [line.split(":")[0] for line in found] == [
        "--to acuracy=0.9",
        "--probe soon",
        "--batch-sizes 10,x",
        "--to acuracy=0.9",
    ]
    assert "--validation 0.1" in found[-1]
    assert problems(batch_sizes="10") == ["--batch-sizes 10: only with --to"]
    (line,) = problems(to="accuracy=0.9", measure_network=False)
    assert "not with --measure-network false" in line
    with pytest.raises(UserError, match="--price -1"):
        plan(build_tree(PlanConfig, SETTINGS | {"price": -1.0}))


@pytest.mark.full
def test_every_way_is_said_how_long_it_takes_to_a_target(tmp_path: Path) -> None:
    out = str(tmp_path / "plan")
    asked = {"to": "accuracy=0.85", "batch_sizes": "16,64", "probe": "24s", "price": 0.5}
    made = plan(build_tree(PlanConfig, SETTINGS | asked | {"out": out}))
    found = json.loads(Path(out, "plan.json").read_text())
    for way in found["ways"]:
        cores = way["workers"] + (way["strategy"] == "param_server")
        assert way["core_hours"] == pytest.approx(cores * way["total_s"] / 3600, rel=1e-4)
        assert way["cost"] == pytest.approx(0.5 * way["core_hours"], rel=1e-4)
    ways = found["to_target"]["ways"]
    assert {way["batch_size"] for way in ways} == {16, 64}
    assert {way["strategy"] for way in ways} >= {"sync", "local_sgd", "hogwild"}
    serial = [way for way in ways if way["strategy"] in ("sync", "model_parallel")]
    for size in (16, 64):  # all that equal serial training need as many epochs
        assert len({way["epochs"] for way in serial if way["batch_size"] == size}) == 1
    assert serial[0]["epochs_are"] == "measured"
    assert any("Quickest to accuracy 0.85" in line for line in made.text())
    assert "Time to accuracy 0.85" in Path(out, "plan.html").read_text()
