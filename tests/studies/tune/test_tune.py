"""A search: the same trials and winner whatever runs them and whenever it was stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.spark_masters import EngineProcess

import sixfold
from sixfold.core.errors import RunError, UserError
from sixfold.core.run_directory import read_json
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.studies.report.command import rewrite_report
from sixfold.studies.tune.config import TuneConfig
from sixfold.studies.tune.report import tune_lines
from sixfold.studies.tune.run import tune

NET = Path(__file__).with_name("small_net.py")
SEARCH = ("lr=log:1e-3:0.3", "batch-size=16,32", "optimizer=sgd,adam")


def settings(out: Path, **more: Any) -> TuneConfig:
    options: dict[str, Any] = {
        "search": SEARCH,
        "trials": 4,
        "rungs": 2,
        "reduction": 2,
        "parallel": 3,
        "data": "digits",
        "max_images": 300,
        "validation": 0.3,
        "model": f"{NET}:net",
        "epochs": 2,
        "engine": "inline",
        "out": str(out),
    }
    from sixfold.core.settings import build_tree

    return build_tree(TuneConfig, options | more)


def told(result: dict[str, Any]) -> list[Any]:
    return [result["trials"], result["best"], result["importances"]]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A search by one worker, never stopped."""
    path = tmp_path_factory.mktemp("tune") / "usual"
    return path, tune(settings(path))


def records(path: Path) -> dict[str, dict[str, Any]]:
    found = {p.parent.name: read_json(p) for p in path.glob("members/*/result.json")}
    return {name: record for name, record in found.items() if record is not None}


def test_the_winner_is_a_plain_training(usual: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, result = usual
    best = result["best"]
    assert best["command"].startswith("sixfold train --validation 0.3 --max-images 300 ")
    plain = sixfold.train(**best["settings"], engine="inline", workers=2, out=tmp_path / "plain")
    assert plain.weights_sha256 == best["weights_sha256"]
    assert plain["validation_accuracy"] == best["value"]
    assert sixfold.open_run(path / best["folder"]).test_accuracy == plain.test_accuracy
    complete = [t for t in result["trials"] if t["state"] == "complete"]
    assert best["value"] == max(t["reached"][-1]["value"] for t in complete)
    assert len(complete) < len(result["trials"]) == 4


def test_a_rung_goes_on_from_the_one_before(usual: tuple[Path, dict[str, Any]]) -> None:
    path, result = usual
    row = next(t for t in result["trials"] if t["state"] == "complete")
    lines = (path / row["folder"] / "metrics.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if "part" not in line]
    assert steps == list(range(1, row["steps"] + 1)), "every step was made once"
    paused = next(t for t in result["trials"] if t["state"] == "paused")
    assert not (path / paused["folder"] / "result.json").exists()


@pytest.mark.full
def test_more_workers_decide_alike(usual: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    result = tune(settings(tmp_path / "two", engine="local", workers=2))
    assert told(result) == told(usual[1])


@pytest.mark.full
@pytest.mark.spark
def test_a_cluster_decides_alike(spark_local: EngineProcess, tmp_path: Path) -> None:
    less = {"trials": 2, "epochs": 1}
    usual = tune(settings(tmp_path / "usual", **less))
    config = settings(tmp_path / "spark", engine="spark", workers=2, **less)
    assert told(tune(config, engine=spark_local)) == told(usual)


class Stopped(InlineEngine):
    """Is killed, as far as a launcher can be within a test, after so many results."""

    left = 0

    def pool(self, function: Any, items: Any, *, on_done: Any = None, **more: Any) -> Any:
        def heard(index: int, result: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise LookupError("stopped")
            return on_done(index, result)

        return super().pool(function, items, on_done=heard, **more)


def test_a_search_that_is_stopped_goes_on_and_trains_nothing_twice(
    usual: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    config = settings(tmp_path / "stopped")
    kept: dict[str, Any] = {}
    for left in (1, 2):
        engine = Stopped()
        engine.left = left
        with pytest.raises(LookupError):
            tune(config, engine=engine)
        now = records(tmp_path / "stopped")
        assert now.items() >= kept.items()
        kept = now
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True))
    result = tune(config)
    assert told(result) == told(usual[1])
    assert result["done_before"] == len(kept) >= 3
    assert records(tmp_path / "stopped").items() >= kept.items()
    assert tune(config) == result, "finished"


@pytest.mark.full
def test_more_trials_go_on_from_fewer(tmp_path: Path) -> None:
    few = tune(settings(tmp_path / "grows", trials=2))
    assert len(few["trials"]) == 2
    kept = records(tmp_path / "grows")
    more = tune(settings(tmp_path / "grows", trials=4, resume=True))
    assert len(more["trials"]) == 4
    assert records(tmp_path / "grows").items() >= kept.items()
    assert more["trials"][0]["values"] == few["trials"][0]["values"]


def test_trials_that_fail_are_told_and_end_nothing(tmp_path: Path) -> None:
    found = tune(
        settings(
            tmp_path / "fails",
            search=("lr=0.01,1e30", "batch-size=16,400"),
            trials=9,
            sampler="random",
            pruner="none",
        )
    )
    assert len(found["trials"]) == 4, "there are no more choices"
    assert found["failed"] == 3
    reasons = {tuple(t["values"].values()): t["reason"] for t in found["trials"]}
    assert "is nan" in reasons[1e30, 16] or "is inf" in reasons[1e30, 16]
    assert "--batch-size 400" in reasons[0.01, 400]
    assert found["best"]["values"] == {"lr": 0.01, "batch_size": 16}
    text = "\n".join(tune_lines(found))
    assert "3 of 4 trials failed" in text


def test_what_cannot_be_at_all_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "refused"
    with pytest.raises(UserError, match=r"--metric rmse: the data have .*accuracy"):
        tune(settings(out, metric="rmse"))
    with pytest.raises(UserError, match="none: set some aside with --validation"):
        tune(settings(out, validation=0.0))
    with pytest.raises(UserError, match="--batch-size 400"):
        tune(settings(out, search=("lr=0.1,0.2",), batch_size=400))
    assert not out.exists()
    with pytest.raises(RunError, match="every trial failed"):
        tune(settings(out, search=("lr=1e30,1e31",), trials=2))


@pytest.mark.full
def test_time_that_is_over_leaves_a_search_to_go_on_with(
    usual: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "late"
    found = tune(settings(out, max_time="0.001s"))
    assert (found["stopped_by"], found["best"]) == ("max_time", None)
    assert "go on with --resume" in "\n".join(tune_lines(found))
    assert told(tune(settings(out, max_time="1h", resume=True))) == told(usual[1])


def test_the_page_is_written_again_from_the_result(
    usual: tuple[Path, dict[str, Any]],
) -> None:
    path, result = usual
    before = (path / "report.html").read_text()
    for part in ("Parallel coordinates", "Importances", result["best"]["folder"], "--optimizer"):
        assert part in before, part
    rewrite_report(path)
    assert (path / "report.html").read_text() == before


def test_from_python_with_a_network_in_hand(tmp_path: Path) -> None:
    from torch import nn

    def network(classes: int, width: int = 8) -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes)]
        return nn.Sequential(*layers)

    options: dict[str, Any] = {
        "search": {"lr": "log:1e-2:1e-1", "model.width": [4, 16]},
        "validation": 0.2,
        "trials": 3,
        "rungs": 1,
        "epochs": 1,
        "max_images": 200,
        "engine": "inline",
        "out": tmp_path / "mine",
    }
    found = sixfold.tune(network, "digits", **options)
    assert found.best is not None
    assert found.winner.weights_sha256 == found.best.weights_sha256
    assert found.winner.predict("digits").labels is not None
    assert len(found.history) == len(found.trials) == 3
    assert set(found.figures()) >= {"Parallel coordinates"}
    assert found.path.name in repr(found)
    with pytest.raises(UserError) as refused:
        sixfold.tune(network, "digits", **options | {"trials": 0, "lrr": 1, "lr": -1.0})
    text = str(refused.value)
    assert "--trials 0" in text
    assert "'lrr'" in text
    assert "--lr -1.0" in text


def launch(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sixfold", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.full
def test_a_launcher_that_is_killed(usual: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "killed"
    config = settings(out)
    tuned = config.tune
    words = ["tune", "--data=digits", *(f"--search={text}" for text in tuned.search)]
    words += [f"--{n}={getattr(tuned, n)}" for n in ("trials", "rungs", "reduction", "parallel")]
    words += ["--max-images=300", "--validation=0.3", f"--model={NET}:net", "--epochs=2"]
    words += ["--workers=2", f"--out={out}"]
    for wanted in (1, 3):
        resume = ["--resume"] if (out / "config.json").exists() else []
        launcher = launch([*words, *resume])
        deadline = time.monotonic() + 60
        while len(records(out)) < wanted and launcher.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
    kept = records(out)
    assert launch([*words, "--resume"]).wait(100) == 0
    result = read_json(out / "result.json")
    assert result is not None
    assert told(result) == told(usual[1])
    assert records(out).items() >= kept.items()
