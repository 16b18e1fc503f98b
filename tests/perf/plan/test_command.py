"""`sixfold plan` from its words: what is refused, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from sixfold.cli import main
from sixfold.core.files import write_json
from sixfold.perf.plan.config import PlanConfig, PlanningConfig
from sixfold.perf.plan.run import plan_problems
from sixfold.training.config import LocalSgdConfig, TrainingConfig, configure
from sixfold.training.run import training_problems


def test_all_problems_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--what-if", "workers=0,link=3", "--model", "nosuch", "--batch-size", "0"]
    assert main(words) == 2
    told = capsys.readouterr().err
    for problem in ("workers=0", "link=3", "unknown model 'nosuch'", "--batch-size 0"):
        assert problem in told


def test_settings_of_one_way_are_no_problem_for_the_others() -> None:
    assert plan_problems(PlanConfig(local_sgd=LocalSgdConfig(local_steps=8))) == []
    [problem] = plan_problems(PlanConfig(local_sgd=LocalSgdConfig(local_steps=0)))
    assert "--local-steps 0" in problem


def test_what_was_not_timed_is_not_estimated() -> None:
    config = PlanConfig(
        planning=PlanningConfig(measure_network=False), training=TrainingConfig(precision="float64")
    )
    [problem] = plan_problems(config)
    assert "timed in float32" in problem


def test_a_machine_that_is_not_there(tmp_path: Path) -> None:
    what_if = f"workers=8,machine={tmp_path}/none.json"
    [problem] = plan_problems(PlanConfig(planning=PlanningConfig(what_if=what_if)))
    assert "no such file" in problem


def test_what_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {})
    planning = PlanningConfig(machine=str(tmp_path), out=str(tmp_path))
    assert plan_problems(PlanConfig(planning=planning)) == [
        f"--out {tmp_path}: holds a run, whose plan would be lost: choose another",
        f"--machine {tmp_path}: must be a file in a directory that exists",
    ]
    automatic = configure(strategy="auto", machine=str(tmp_path))
    assert training_problems(automatic) == [
        f"--machine {tmp_path}: must be a file in a directory that exists"
    ]


def test_a_calibration_of_another_network_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "machine.json").write_text("{}")
    words = ["plan", "--machine", str(tmp_path / "machine.json"), "--engine", "inline"]
    assert main(words) == 2
    assert "no calibration" in capsys.readouterr().err
