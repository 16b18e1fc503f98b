from __future__ import annotations

from typing import Any

import pytest
from tests.spark_masters import EngineProcess

import sixfold
from sixfold.cli import main
from sixfold.studies.lab.config import JobPerStepConfig, JobPerStepOptions
from sixfold.studies.lab.job_per_step.study import problems

SETTINGS: dict[str, Any] = {
    "data": "synthetic:90x3x8x8",
    "lr": 0.01,
    "batch_size": 40,
    "steps": 5,  # three epochs of two steps of 40 images and one of 10, in part
    "evaluate_every": 0.0,
    "engine": "inline",
    "workers": 1,
}


def test_every_problem_is_told_at_once() -> None:
    options = JobPerStepOptions(data="synthetic:50x3x8x8", batches="10,60", steps=3, model="slid")
    config = JobPerStepConfig(job_per_step=options)
    found = [*config.problems(), *problems(config)]
    assert len(found) == 3
    assert "has only 50 images" in found[1]


def test_wrong_settings_are_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "job-per-step", "--batches", "ten"]) == 2
    assert "--batches ten" in capsys.readouterr().err


def train_with_jobs(engine: Any, settings: dict[str, Any], models: list[str]) -> dict[str, Any]:
    """Over there: hash of the weights, and jobs of every step."""
    import sixfold
    from sixfold.studies.lab.cluster import Cluster
    from sixfold.studies.lab.job_per_step.stepper import train_by_jobs

    cluster = Cluster(engine)
    found = {}
    for model in models:
        stepped = train_by_jobs(cluster, sixfold.configure(model=model, **settings))
        found[model] = (stepped.weights_sha256, [step.cost.jobs for step in stepped.steps])
    return found


@pytest.mark.spark
@pytest.mark.parametrize(
    "models",
    [
        pytest.param(["slide"], marks=pytest.mark.full),
        pytest.param(["resnet20"], marks=pytest.mark.full),
        pytest.param(["mobilenet_v2"], marks=pytest.mark.full),
    ],
)
def test_weights_have_the_bits_of_serial_training(
    spark_local: EngineProcess, models: list[str], tmp_path: Any
) -> None:
    found = spark_local.call(train_with_jobs, SETTINGS, models)
    for model in models:
        config = sixfold.configure(model=model, out=str(tmp_path / model), **SETTINGS)
        serial = sixfold.train(config)
        assert found[model] == (serial["weights_sha256"], [1] * 5)
