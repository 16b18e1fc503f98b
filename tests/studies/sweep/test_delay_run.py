"""Delays of a real Spark."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.spark_masters import EngineProcess

pytestmark = pytest.mark.spark


@pytest.mark.full
def test_every_job_brings_what_it_should(spark_local: EngineProcess) -> None:
    def run_each(engine: Any) -> list[float]:  # nested, so that it travels by value
        from sixfold.studies.sweep.delay_jobs import run_job
        from sixfold.studies.sweep.delay_plan import JobKind

        sizes = {"empty": 0, "result": 5000, "broadcast": 70_001, "shuffle": 900}
        kinds = [
            JobKind(kind=kind, tasks=tasks, payload_bytes=size)
            for kind, size in sizes.items()
            for tasks in (1, 3)
        ]
        return [run_job(engine.session.context, job, seed=1) for job in kinds]

    assert all(seconds > 0 for seconds in spark_local.call(run_each))


@pytest.mark.full
def test_delays_are_read_from_sparks_own_events(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sixfold", "sweep", "delay", "--out", str(tmp_path / "d")]
    command += ["--workers", "1,2", "--tasks", "1,3", "--result-bytes", "3M"]
    command += ["--broadcast-bytes", "", "--shuffle-bytes", "1M", "--repeats", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "d" / "result.json").read_text())
    assert [session["workers"] for session in result["sessions"]] == [1, 2]
    for point in result["points"]:
        assert point["tasks_run"] == point["tasks"] * (2 if point["kind"] == "shuffle" else 1)
        assert 0 < point["job_s"]["median"] <= point["wall_s"]["median"] + 0.002
        if point["kind"] == "result":  # beyond Spark's 1 MB, fetched by the driver
            assert point["result_bytes"] >= point["tasks"] * 3e6
            assert point["parts"]["fetch"] > 0
        if point["kind"] == "shuffle":
            assert point["shuffled_bytes"] >= 0.99 * point["moved_bytes"]
    assert (tmp_path / "d" / "report.html").stat().st_size > 10_000
