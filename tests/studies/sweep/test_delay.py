"""Plans and figures of a sweep over delays."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli import main
from sixfold.core.byte_sizes import written
from sixfold.core.errors import UserError
from sixfold.studies.sweep.config import ClusterConfig, DelaySweepConfig, SweepDelayConfig
from sixfold.studies.sweep.delay import delay_result
from sixfold.studies.sweep.delay_plan import job_kinds, parse_sizes, sessions, too_large


def config(cluster: dict[str, Any] | None = None, **delay: Any) -> SweepDelayConfig:
    return SweepDelayConfig(
        delay=DelaySweepConfig(**delay), cluster=ClusterConfig(**(cluster or {}))
    )


def test_every_payload_is_run_with_every_number_of_tasks() -> None:
    jobs = job_kinds(
        config(tasks="4,1", result_bytes="1K", broadcast_bytes="", shuffle_bytes="2M,1M")
    )
    assert [job.name for job in jobs] == [
        "empty x 1",
        "empty x 4",
        "result 1K x 1",
        "result 1K x 4",
        "shuffle 1M x 1",
        "shuffle 1M x 4",
        "shuffle 2M x 1",
        "shuffle 2M x 4",
    ]
    assert [job.moved_bytes for job in jobs] == [0, 0, 1024, 4096, *(2 * [2**20]), *(2 * [2**21])]
    assert [job.name for job in too_large(jobs, 4096)] == ["result 1K x 4"]
    assert too_large(jobs, 0) == []
    for size in (1, 1023, 1024, 3 << 20, 1 << 30):
        assert parse_sizes("", written(size)) == [size]


def test_sessions_follow_from_the_kind_of_master() -> None:
    assert [s.master for s in sessions(ClusterConfig(workers="2,1"))] == ["local[1]", "local[2]"]
    (only,) = sessions(ClusterConfig(master="yarn"))
    assert (only.master, only.workers) == ("yarn", None)
    (three,) = sessions(ClusterConfig(master="spark://h:7077", workers="3"))
    assert three.conf == ("spark.cores.max=3",)
    with pytest.raises(UserError, match="cannot be set from here"):
        sessions(ClusterConfig(master="yarn", workers="3"))


def test_wrong_settings_are_told_at_once() -> None:
    asked = config(
        {"workers": "0", "spark_conf": ("x", "spark.eventLog.dir=/tmp")},
        tasks="a",
        result_bytes="1X",
        shuffle_bytes="0",
        repeats=0,
    )
    told = "\n".join(asked.problems())
    for word in ("--tasks 'a'", "'1X'", "--shuffle-bytes '0'", "--repeats 0", "--workers '0'"):
        assert word in told
    assert "'x': expected key=value" in told
    assert "keeps its own event log" in told


def test_a_cluster_that_is_not_there_is_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyspark")
    command = ["sweep", "delay", "--out", str(tmp_path / "d")]
    assert main([*command, "--master", "spark://127.0.0.1:1"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert main([*command, "--master", "loca[2]"]) == 2
    assert "unknown Spark master" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def session(workers: int) -> dict[str, Any]:
    """A session whose jobs follow the load/overhead law exactly."""
    points = []
    for kind, size in (("empty", 0), ("shuffle", 1 << 20), ("shuffle", 1 << 24)):
        for tasks in (1, 2, 8):
            wall_s = 0.02 + 0.003 * tasks + 0.01 * math.ceil(tasks / workers) + 2e-8 * size
            parts = {
                "scheduler_delay": 0.004 + 0.001 * tasks,
                "deserialize": 0.001,
                "run": 0.01,
                "serialize": 0.0,
                "fetch": 0.0,
            }
            run = {
                "wall_s": wall_s,
                "job_s": wall_s - 0.001,
                "launch_wait_s": 0.002,
                "parts": parts,
                "longest_delay_s": 0.02,
                "shuffled_bytes": size,
                "result_bytes": 0,
                "tasks_run": tasks,
            }
            points.append(
                {
                    "kind": kind,
                    "tasks": tasks,
                    "payload_bytes": size,
                    "moved_bytes": size,
                    "runs": [run, run, run],
                }
            )
    return {"workers": workers, "master": f"local[{workers}]", "session_s": 4.0, "points": points}


def test_the_law_that_made_the_times_is_found_again() -> None:
    result = delay_result([session(1), session(2), session(4)], draws=20)
    assert len(result.points) == 27
    laws = {(law.law, law.kind, law.outcome): law for law in result.laws}
    assert set(laws) == {
        (law, kind, outcome)
        for law in ("load/overhead", "ernest")
        for kind in ("empty", "shuffle")
        for outcome in ("job", "delay")
    }
    load = laws["load/overhead", "shuffle", "job"]
    values = {one.name: one.value for one in load.coefficients}
    assert values == pytest.approx({"job_s": 0.02, "task_s": 0.003, "wave_s": 0.01, "byte_s": 2e-8})
    assert load.held_out_error is not None
    assert load.held_out_error < 1e-6
    assert result.overhead_s("shuffle", {"n": 8.0, "m": 64.0, "size": 1e6}) == (
        pytest.approx(0.02 + 0.003 * 64 + 0.01 * 8 + 0.02)
    )
    with pytest.raises(KeyError):
        result.overhead_s("result", {"n": 1.0, "m": 1.0, "size": 0.0})


def test_the_page_shows_every_job(tmp_path: Path) -> None:
    from sixfold.core.run_directory import as_json
    from sixfold.studies.sweep.delay_report import delay_lines, write_page

    result = dataclasses.asdict(delay_result([session(1), session(2)], draws=0))
    result |= {"failures": {}, "versions": {}, "wall_s": 1.0, "report": "report.html"}
    write_page(tmp_path, as_json(SweepDelayConfig()), result)
    page = (tmp_path / "report.html").read_text()
    jobs = page.partition("<h2>Jobs</h2>")[2].partition("<h2>")[0]
    assert jobs.count('<th scope="row">shuffle</th>') == 12
    assert page.count("<svg") == 3
    lines = delay_lines(result)
    assert len(lines) == 1 + 18 + len(result["laws"]) + 1
    assert "scheduler delay 5 ms" in lines[1]
