"""Whole sweeps: every combination once, resumed, told beside what could not be run."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli import main
from sixfold.core.errors import UserError
from sixfold.studies.sweep.config import (
    QualitySweepConfig,
    SweepQualityConfig,
    SweepRunConfig,
    SweepTimeConfig,
    TimeSweepConfig,
)
from sixfold.studies.sweep.report import quality_lines, time_lines
from sixfold.studies.sweep.run import sweep_quality, sweep_time
from sixfold.training.config import TrainConfig

Configure = Callable[..., TrainConfig]
SHARED = ("data", "model", "optimizer", "training", "strategy", "local_sgd", "engine")


def timed(base: TrainConfig, out: Path, *vary: str, **more: Any) -> SweepTimeConfig:
    run = {name: more.pop(name) for name in ("resume", "overwrite") if name in more}
    return SweepTimeConfig(
        sweep=TimeSweepConfig(vary=vary, **more),
        run=SweepRunConfig(out=str(out), **run),
        **{name: getattr(base, name) for name in SHARED},
    )


def compared(base: TrainConfig, out: Path, *vary: str, **more: Any) -> SweepQualityConfig:
    run = {name: more.pop(name) for name in ("resume", "overwrite") if name in more}
    return SweepQualityConfig(
        sweep=QualitySweepConfig(vary=vary, **more),
        run=SweepRunConfig(out=str(out), **run),
        **{name: getattr(base, name) for name in SHARED},
    )


def test_trainings_are_timed_in_turns_and_the_laws_are_told(
    configure: Configure, tmp_path: Path
) -> None:
    base = configure(steps=None)
    out = tmp_path / "sweep"
    result = sweep_time(
        timed(base, out, "workers=1,2", "batch_size=20,40", repeats=2, seconds=0.02)
    )
    assert [row["values"] for row in result["points"]] == [
        {"workers": n, "batch_size": b} for n in (1, 2) for b in (20, 40)
    ]
    for row in result["points"]:
        assert len(row["repeats"]) == 2
        assert row["images_per_s"]["least"] > 0
        assert set(row["parts"]) == {"compute", "data", "communication", "waiting", "update"}
        assert row["speedup"]["median"] == pytest.approx(1.0) or row["workers"] == 2
    laws = [law["law"] for law in result["laws"]]
    assert laws == ["amdahl", "amdahl", "gustafson", "ernest"]
    assert json.loads((out / "result.json").read_text()) == result
    page = (out / "report.html").read_text()
    assert "<svg" in page
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_text() == page
    records = [json.loads(p.read_text()) for p in out.glob("members/*/result.json")]
    assert len(records) == 4 + 8
    turns = sorted(records, key=lambda record: record["started_at"])
    repeats = [record["settings"].get("repeat", -1) for record in turns]
    assert repeats == sorted(repeats)
    assert not list(out.glob("members/*/run/checkpoints"))
    assert len(time_lines(result)) == 1 + 4 + 4 + 1


def test_a_sweep_grows_when_it_is_resumed(configure: Configure, tmp_path: Path) -> None:
    base, out = configure(), tmp_path / "sweep"
    sweep_time(timed(base, out, "batch_size=20", repeats=1))
    before = {p: p.stat().st_mtime_ns for p in out.glob("members/*/result.json")}
    with pytest.raises(UserError, match="other settings"):
        sweep_time(timed(base, out, "batch_size=20,40", repeats=1))
    result = sweep_time(timed(base, out, "batch_size=20,40", repeats=1, resume=True))
    assert result["done_before"] == 1
    assert [row["steps"] for row in result["points"]] == [6, 6]
    assert all(p.stat().st_mtime_ns == at for p, at in before.items())


@pytest.mark.full
def test_trainings_may_run_side_by_side(configure: Configure, tmp_path: Path) -> None:
    base, out = configure(engine="local", workers=2), tmp_path / "s"
    result = sweep_time(timed(base, out, "batch_size=20,40", repeats=1, parallel=2))
    assert all(row["images_per_s"]["median"] > 0 for row in result["points"])
    records = [json.loads(path.read_text()) for path in out.glob("members/*/result.json")]
    assert len({record["pid"] for record in records}) == 2
    first, second = sorted(record["started_at"] for record in records)
    assert second < first + max(record["seconds"] for record in records)


def test_whole_trainings_are_fitted_where_images_are_varied(
    configure: Configure, tmp_path: Path
) -> None:
    base = configure(steps=None, epochs=1.0)
    result = sweep_time(timed(base, tmp_path / "s", "workers=1,2", "max_images=80,160", repeats=1))
    assert [law["law"] for law in result["laws"]] == ["amdahl"] * 2 + ["ernest, whole trainings"]
    assert [row["steps"] for row in result["points"]] == [2, 4, 2, 4]


def test_a_sweep_of_which_nothing_can_be_run_is_refused(
    configure: Configure, tmp_path: Path
) -> None:
    sweeps: list[Callable[[], Any]] = [
        lambda: sweep_time(timed(configure(), tmp_path / "s", "batch_size=500,600", repeats=1)),
        lambda: sweep_quality(compared(configure(), tmp_path / "s", "batch_size=500,600")),
    ]
    for sweep in sweeps:
        with pytest.raises(UserError, match="has only 200 images") as refused:
            sweep()
        assert len(refused.value.problems) == 2
        assert not (tmp_path / "s").exists()


def test_what_cannot_be_run_is_told_and_the_rest_goes_on(
    configure: Configure, tmp_path: Path
) -> None:
    # More images in a batch than there are to train on.
    result = sweep_time(timed(configure(), tmp_path / "s", "batch_size=500,20", repeats=1))
    refused, done = result["points"]
    assert "has only 200 images" in refused["refused"]
    assert refused["repeats"] == []
    assert done["images_per_s"]["median"] > 0
    assert any(refused["refused"] in line for line in time_lines(result))


@pytest.mark.full
def test_trainings_are_compared_by_what_they_reach(configure: Configure, tmp_path: Path) -> None:
    base = configure(data="digits", model="slide", steps=25, validation=0.2, workers=2)
    out = tmp_path / "sweep"
    vary = ("model.kernel=3,5", "lr=0.0,0.03", "seed=0,1")
    result = sweep_quality(compared(base, out, *vary))
    assert len(result["trainings"]) == 8
    effect = {found["name"]: found for found in result["effects"]}
    assert effect["lr"]["levels"][1]["difference"]["mean"] > 0.2
    assert effect["lr"]["share_of_variance"] > 0.8
    assert len(result["cells"]) == 4
    lines = "\n".join(quality_lines(result))
    assert "model.kernel (" in lines
    chosen = sweep_quality(compared(base, out, *vary, choose="lr", resume=True))
    assert chosen["done_before"] == 8
    assert len(chosen["cells"]) == 2
    assert [found["name"] for found in chosen["effects"]] == ["model.kernel"]
    assert min(cell["accuracy"]["mean"] for cell in chosen["cells"]) > 0.5


def test_workers_are_the_jobs_unless_they_are_varied(configure: Configure, tmp_path: Path) -> None:
    base, out = configure(workers=2), tmp_path / "s"
    first = sweep_quality(compared(base, out, "seed=0"))
    more = dataclasses.replace(base, engine=dataclasses.replace(base.engine, workers=1))
    again = sweep_quality(compared(more, out, "seed=0,1", resume=True))
    assert again["done_before"] == 1
    assert again["trainings"][0]["weights_sha256"] == first["trainings"][0]["weights_sha256"]
    base = configure(strategy="local_sgd", workers=2)
    two = sweep_quality(compared(base, tmp_path / "two", "workers=1,2"))
    one, other = (row["weights_sha256"] for row in two["trainings"])
    assert one == first["trainings"][0]["weights_sha256"] != other


def test_a_training_that_diverges_is_an_outcome(configure: Configure, tmp_path: Path) -> None:
    base = configure(steps=30, momentum=0.9)
    result = sweep_quality(compared(base, tmp_path / "s", "lr=0.001,1e30"))
    fine, diverged = result["trainings"]
    assert fine["test_accuracy"] >= 0
    assert "try a smaller --lr" in diverged["diverged"]
    assert len(result["cells"]) == 1


def test_a_training_that_diverges_cannot_be_timed(configure: Configure, tmp_path: Path) -> None:
    base = configure(steps=6, momentum=0.9)
    result = sweep_time(timed(base, tmp_path / "s", "lr=0.001,1e30", repeats=1))
    fine, diverged = result["points"]
    assert fine["images_per_s"]["median"] > 0
    assert "try a smaller --lr" in diverged["refused"]


def test_wrong_settings_are_told_at_once_and_nothing_is_written(
    configure: Configure, tmp_path: Path
) -> None:
    out = tmp_path / "s"
    with pytest.raises(UserError) as caught:
        sweep_time(timed(configure(), out, "batch_size=0,10", "lr=-1,1", repeats=0))
    told = "\n".join(caught.value.problems)
    assert told.count("--batch-size 0") == told.count("--lr -1") == 1
    assert "--repeats 0" in told
    for settings, vary, told in (
        ({}, ("strategy=sync,local_sgd,hogwild",), "one worker local_sgd, hogwild equals sync"),
        ({}, ("strategy=sync,local_sgd", "workers=1"), "--vary strategy: each training of this"),
        ({"strategy": "hogwild"}, ("lr=0.1,0.2",), "--strategy: each training of this sweep has"),
        ({"strategy": "local_sgd"}, ("local_steps=1,2",), "give --vary workers=2"),
        ({}, ("workers=1,2",), "--vary workers: with --strategy sync results do not depend on"),
    ):
        with pytest.raises(UserError, match=told):
            sweep_quality(compared(configure(**settings), out, *vary))
    with pytest.raises(UserError, match="is not varied"):
        sweep_quality(compared(configure(), out, "lr=0.1,0.2", choose="batch_size"))
    with pytest.raises(UserError, match="never on the test part"):
        sweep_quality(compared(configure(), out, "lr=0.1,0.2", choose="lr"))
    assert not out.exists()


def test_the_command_line_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep"]) == 2
    assert "sixfold sweep quality" in capsys.readouterr().err
    assert main(["sweep", "time", "--vary", "nothing=1", "--repeats", "x"]) == 2
    told = capsys.readouterr().err
    assert "nothing is no setting" in told
    assert "--repeats 'x': expected a whole number" in told
