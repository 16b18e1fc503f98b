"""A whole training from the launcher's side: results, resuming, and refusals."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sixfold
from sixfold.core.errors import NonFiniteLossError, UserError
from sixfold.core.run_directory import as_json
from sixfold.distributed.config import EngineConfig
from sixfold.training.config import TrainConfig, TrainingConfig
from sixfold.training.digits import fit_digits
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_in_its_directory(configure: Configure, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(configure(out=str(out), workers=2, validation=0.2, evaluate_every=1.0, steps=9))
    names = {path.name for path in out.iterdir()}
    assert {
        "config.json",
        "metrics.jsonl",
        "result.json",
        "model.safetensors",
        "checkpoints",
        "report.html",
        "log.txt",
        "timeline",
    } <= names
    assert json.loads((out / "result.json").read_text()) == result
    steps = [line for line in lines_of(out) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 10))
    assert all({"time", "epoch", "lr", "accuracy", "images"} <= line.keys() for line in steps)
    parts = [line["part"] for line in lines_of(out) if "part" in line]
    assert parts == ["validation", "validation", "validation", "test"]
    timeline = sorted((out / "timeline").glob("*.jsonl"))
    assert [path.name for path in timeline] == ["rank-0000.jsonl", "rank-0001.jsonl"]
    for path in timeline:
        assert len(path.read_text().splitlines()) == 9
        assert path.with_suffix(".json").exists()
    assert (out / "timeline" / "launcher.json").exists()
    assert result["steps"] == 9
    assert result["workers"] == 2
    assert result["restarts"] == 0
    assert {"torch", "python", "sixfold"} <= result["versions"].keys()
    assert result["report"] == str(out / "report.html")


def test_what_is_no_runs_is_not_removed(configure: Configure, tmp_path: Path) -> None:
    mine = tmp_path / "checkpoints" / "mine.pt"
    mine.parent.mkdir()
    mine.write_text("weeks of work")
    with pytest.raises(UserError, match="holds checkpoints and no run of Sixfold: choose another"):
        train(configure(out=str(tmp_path), steps=1))
    assert mine.read_text() == "weeks of work"
    train(configure(out=str(tmp_path), steps=1, overwrite=True))
    assert not mine.exists()


def test_damaged_settings_of_an_older_run_are_one_problem(
    configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is damaged \(.*\): put it back") as refused:
        train(configure(out=str(tmp_path), resume=True))
    assert len(refused.value.problems) == 1


def test_the_hash_is_that_of_the_saved_weights(configure: Configure, tmp_path: Path) -> None:
    from sixfold.training.checkpoint import weights_sha256

    result = train(configure(out=str(tmp_path / "run"), model="resnet20", steps=2))
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert weights_sha256(tensors) == result["weights_sha256"]
    assert tensors["bn1.num_batches_tracked"].dtype == torch.int64 if "bn1" in tensors else True


def test_throughput_agrees_with_the_logged_times(configure: Configure, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(configure(out=str(out), steps=40, evaluate_every=1.0))
    steps = {line["step"]: line["time"] for line in lines_of(out) if "loss" in line}
    paused = sum(line.get("eval_s", 0) for line in lines_of(out) if 3 < line["step"] < 40)
    expected = 37 * 40 / (steps[40] - steps[3] - paused)
    assert result["train_images_per_s"] == pytest.approx(expected, rel=0.1)


def test_the_same_run_again_is_not_run_again(configure: Configure, tmp_path: Path) -> None:
    config = configure(out=str(tmp_path / "run"))
    first = train(config)
    stamp = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    heard: list[Any] = []
    assert train(config, on_event=heard.append) == first
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == stamp
    assert any("finished" in event.get("text", "") for event in heard)


def test_other_settings_in_the_same_directory_are_refused(
    configure: Configure, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    train(configure(out=out))
    with pytest.raises(UserError) as caught:
        train(configure(out=out, lr=0.02, batch_size=20))
    text = str(caught.value)
    assert "--overwrite" in text
    assert "--lr: 0.01 -> 0.02" in text
    assert "--batch-size: 40 -> 20" in text
    other = train(configure(out=out, lr=0.02, overwrite=True))
    assert other["steps"] == 6


def test_an_unfinished_run_wants_resume_or_overwrite(configure: Configure, tmp_path: Path) -> None:
    config = configure(out=str(tmp_path / "run"))
    first = train(config)
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="was not finished"):
        train(config)
    again = train(configure(out=str(tmp_path / "run"), resume=True))
    assert again["weights_sha256"] == first["weights_sha256"]


def test_resume_without_a_directory_is_refused(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run directory"):
        train(configure(out=str(tmp_path / "none"), resume=True))


def test_resume_in_an_empty_directory_starts_at_step_0(
    configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    result = train(configure(out=str(tmp_path / "run"), resume=True))
    assert result["steps"] == 6


CASES: list[dict[str, Any]] = [
    {"momentum": 0.9, "augment": "crop:1,flip"},
    {"optimizer": "adam", "schedule": "cosine", "warmup": 1.0, "weight_decay": 0.01},
    {"model": "resnet20", "batch_norm": "sync", "workers": 2, "batch_size": 64},
]


@pytest.mark.parametrize("changes", [*CASES[:2], pytest.param(CASES[2], marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "stop_after",
    [pytest.param(1, marks=pytest.mark.full), 4, pytest.param(7, marks=pytest.mark.full)],
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    configure: Configure, tmp_path: Path, changes: dict[str, Any], stop_after: int
) -> None:
    """Stopped in the middle of an epoch by a launcher that asks rank 0 to stop."""
    settings = {"steps": 9, "validation": 0.1, "checkpoint_every": 3, **changes}
    whole = train(configure(out=str(tmp_path / "whole"), **settings))
    out = tmp_path / "run"
    config = configure(out=str(out), **settings)

    def interrupt(event: Any) -> None:
        if event["kind"] == "progress" and event["step"] >= stop_after:
            raise KeyboardInterrupt

    from sixfold.training import log

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "REPORT_S", -1.0)
        with pytest.raises(KeyboardInterrupt):
            train(config, on_event=interrupt)
    assert not (out / "result.json").exists()
    resumed = train(configure(out=str(out), resume=True, **settings))
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["test_loss"] == whole["test_loss"]
    before = [line["loss"] for line in lines_of(tmp_path / "whole") if "loss" in line]
    after = [line["loss"] for line in lines_of(out) if "loss" in line]
    assert after == before


def test_only_the_last_checkpoints_and_the_best_are_kept(
    configure: Configure, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = {
        "validation": 0.2,
        "evaluate_every": 1.0,
        "checkpoint_every": 2,
        "keep_checkpoints": 2,
    }
    result = train(configure(out=str(out), steps=24, lr=0.05, **settings))
    kept = {int(path.stem.removeprefix("step-")) for path in (out / "checkpoints").iterdir()}
    assert {22, 24} <= kept
    assert result["best_step"] in kept
    assert len(kept) <= 3


def test_a_diverging_run_stops_and_keeps_its_last_checkpoint(
    configure: Configure, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match=r"the loss of step \d+ is (inf|nan)"):
        train(configure(out=str(out), lr=1e18, steps=50, checkpoint_every=1))
    kept = sorted((out / "checkpoints").iterdir())
    assert kept
    weights = load_file(kept[-1])
    assert all(torch.isfinite(t).all() for n, t in weights.items() if n.startswith("model."))
    assert "Its last start ended so: the loss of step" in (out / "report.html").read_text()


def test_every_problem_is_told_at_once(configure: Configure, tmp_path: Path) -> None:
    config = configure(
        out=str(tmp_path / "run"),
        batch_size=0,
        lr=-1.0,
        shards=3,
        schedule="never",
        workers=0,
        validation=0.9,
        master="local[2]",
    )
    with pytest.raises(UserError) as caught:
        train(config)
    assert len(caught.value.problems) == 7
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_fit_is_refused_before_anything_is_written(
    configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="lenet5 cannot take 3x8x8 images"):
        train(configure(out=str(tmp_path / "run"), model="lenet5"))
    assert not (tmp_path / "run").exists()


def test_the_test_set_selects_nothing(configure: Configure, tmp_path: Path) -> None:
    """With the test labels shuffled, everything but the test figures stays as it was."""
    from sixfold import data

    settings = {"validation": 0.2, "evaluate_every": 1.0, "steps": 12}
    honest = train(configure(out=str(tmp_path / "a"), **settings))
    original = data.open_data

    def shuffled(config: Any) -> Any:
        opened = original(config)
        opened.test.labels = opened.test.labels[::-1].copy()
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_data", shuffled)
        other = train(configure(out=str(tmp_path / "b"), **settings))
    assert other["test_accuracy"] != honest["test_accuracy"]
    for name in ("weights_sha256", "best_step", "validation_accuracy"):
        assert other[name] == honest[name]


def test_a_rank_that_sees_another_directory_is_refused(
    configure: Configure, tmp_path: Path
) -> None:
    from sixfold.core.run_directory import RankFiles, RunDirectory

    directory = RunDirectory(tmp_path / "run")
    directory.create()
    number = directory.claim()
    other = dataclasses.replace(directory.ticket(), token="another")
    with pytest.raises(UserError, match="--out must lie on storage that all hosts share"):
        RankFiles(other, attempt=number, rank=1, host="there")


def test_workers_beyond_the_shards_stay_idle_and_that_is_told(
    configure: Configure, tmp_path: Path
) -> None:
    heard: list[Any] = []
    settings = {"batch_size": 10, "steps": 3}
    result = train(configure(out=str(tmp_path / "a"), workers=5, **settings), on_event=heard.append)
    assert any("3 of 5 workers have nothing to do" in event.get("text", "") for event in heard)
    alone = train(configure(out=str(tmp_path / "b"), **settings))
    assert result["weights_sha256"] == alone["weights_sha256"]


def test_a_run_that_an_engine_refuses_leaves_nothing_in_the_way(
    configure: Configure, tmp_path: Path
) -> None:
    from sixfold.distributed.engines.inline import InlineEngine

    class Small(InlineEngine):
        def run_ranks(self, *_: Any, **__: Any) -> Any:
            raise UserError("2 ranks need 2 slots")

    out = str(tmp_path / "run")
    with pytest.raises(UserError, match="need 2 slots"):
        train(configure(out=out, workers=2), engine=Small())
    assert train(configure(out=out))["steps"] == 6


@pytest.mark.parametrize("schedule", ["constant", "step:2:0.5"])
def test_a_finished_run_that_is_trained_on_equals_a_longer_one(
    configure: Configure, tmp_path: Path, schedule: str
) -> None:
    more: dict[str, Any] = {"steps": None, "schedule": schedule, "augment": "flip"}
    whole = train(configure(out=str(tmp_path / "whole"), epochs=4, **more))
    out = str(tmp_path / "run")
    train(configure(out=out, epochs=2, **more))
    with pytest.raises(UserError, match=r"continue it with --resume(.|\n)*--epochs: 2"):
        train(configure(out=out, epochs=4, **more))
    longer = train(configure(out=out, epochs=4, resume=True, **more))
    assert longer["weights_sha256"] == whole["weights_sha256"]
    assert longer["steps"] == whole["steps"]
    assert train(configure(out=out, epochs=4, **more)) == longer
    with pytest.raises(UserError, match=r"--epochs 1: the run in .* has made 20 steps, more than"):
        train(configure(out=out, epochs=1, resume=True, **more))


def test_a_run_whose_schedule_had_another_length_is_never_taken_for_a_whole_one(
    configure: Configure, tmp_path: Path
) -> None:
    out, heard = str(tmp_path / "run"), list[Any]()
    train(configure(out=out, schedule="cosine"))
    longer = configure(out=out, schedule="cosine", steps=12, resume=True)
    result = train(longer, on_event=heard.append)
    assert result["lengthened_at"] == [6]
    assert any("not what a run of this length" in event.get("text", "") for event in heard)
    with pytest.raises(UserError, match="trained on from step 6, which with --schedule cosine"):
        train(configure(out=out, schedule="cosine", steps=12))
    assert train(longer) == result


def test_where_a_finished_run_ran_is_no_other_run_unless_it_counts(
    configure: Configure, tmp_path: Path
) -> None:
    out, heard = str(tmp_path / "run"), list[Any]()
    first = train(configure(out=out))
    other = configure(out=out, workers=3, engine="local", max_restarts=1)
    assert train(other, on_event=heard.append) == first
    assert any("finished by 1 workers on inline" in event.get("text", "") for event in heard)
    out = str(tmp_path / "apart")
    train(configure(out=out, strategy="local_sgd", workers=2))
    with pytest.raises(UserError, match=r"--workers: 2 -> 1"):
        train(configure(out=out, strategy="local_sgd", workers=1))


def test_the_second_start_in_one_directory_is_told_who_has_it(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(out=str(tmp_path / "run"))
    refusals = []

    def start_again(event: Any) -> None:
        if event.get("kind") == "rank":
            with pytest.raises(UserError, match="is in use by process") as refused:
                train(configure(out=str(tmp_path / "run"), overwrite=True))
            refusals.append(refused)

    first = train(config, on_event=start_again)
    assert len(refusals) == 1
    assert train(config) == first


def test_a_momentum_that_is_not_used_is_told(configure: Configure, tmp_path: Path) -> None:
    def notes(**options: Any) -> list[str]:
        told: list[Any] = []
        settings = {"steps": 1, "momentum": 0.5, "out": str(tmp_path / options["optimizer"])}
        train(configure(**settings, **options), on_event=told.append)
        return [event["text"] for event in told if event["kind"] == "note"]

    assert "--momentum 0.5: adamw does not use it" in notes(optimizer="adamw")
    assert not any("--momentum" in note for note in notes(optimizer="sgd"))


def test_without_any_options_digits_are_made_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[Any] = []
    bare = TrainConfig()
    assert fit_digits(bare).data.resize == 28
    # Whatever is said by the user is left alone, and what fits.
    for given in ({"resize": 8}, {"model": "slide"}, {"data": "synthetic:20x1x8x8"}):
        asked = sixfold.configure(**given)
        assert fit_digits(asked) == asked
    engine = {"engine": "inline", "workers": 1}
    result = train(sixfold.configure(steps=2, **engine), on_event=told.append)
    assert "--resize 28 is taken" in told[0]["text"]
    assert (
        json.loads((tmp_path / "runs").glob("*/config.json").__next__().read_text())["data"]
        == (as_json(fit_digits(bare))["data"])
    )
    assert result["steps"] == 2


class EnoughError(Exception):
    """Ends a command once it has said what is looked for."""


@pytest.mark.parametrize("command", ["tickets", "plan", "profile", "sweep_time"])
def test_every_command_makes_digits_fit_as_training_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from sixfold.lottery.config import TicketsConfig
    from sixfold.lottery.run import tickets
    from sixfold.perf.plan.config import PlanConfig
    from sixfold.perf.plan.run import plan
    from sixfold.perf.profile.config import ProfileConfig
    from sixfold.perf.profile.run import profile
    from sixfold.studies.sweep.config import SweepTimeConfig
    from sixfold.studies.sweep.run import sweep_time

    monkeypatch.chdir(tmp_path)
    kind, run = {
        "tickets": (TicketsConfig, tickets), "plan": (PlanConfig, plan),
        "profile": (ProfileConfig, profile), "sweep_time": (SweepTimeConfig, sweep_time),
    }[command]  # fmt: skip
    config: Any = kind(engine=EngineConfig(engine="inline"))
    assert fit_digits(config).data.resize == 28

    def hear(event: Any) -> None:
        if "lenet5: 8x8 digits are too small: --resize 28 is taken" in event.get("text", ""):
            raise EnoughError

    with pytest.raises(EnoughError):
        run(config, on_event=hear)  # type: ignore[operator]


def test_digits_have_one_size_for_all_networks_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sixfold.studies.sweep.config import QualitySweepConfig, SweepQualityConfig
    from sixfold.studies.sweep.run import sweep_quality

    monkeypatch.chdir(tmp_path)
    config = SweepQualityConfig(
        sweep=QualitySweepConfig(vary=("model=lenet300,lenet5", "lr=0.1")),
        training=TrainingConfig(steps=1),
        engine=EngineConfig(engine="inline", workers=1),
    )
    found = sweep_quality(config)
    assert [row["steps"] for row in found["trainings"]] == [1, 1]
    record = json.loads(next((tmp_path / "runs").glob("*/config.json")).read_text())
    assert record["data"]["resize"] == 28
