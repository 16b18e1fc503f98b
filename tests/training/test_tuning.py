"""Tuning files: made by the benchmark, taken by a training, kept by its run directory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.bench import BenchConfig, run, tune
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig

from sixfold.cli import main
from sixfold.core.config import RunConfig
from sixfold.core.errors import UserError
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import ComputeConfig, TrainConfig, TrainingConfig
from sixfold.training.run import train
from sixfold.training.tuning import read_tuning

SPEC = "synthetic:64x1x28x28"


def tuning(**changes: Any) -> dict[str, Any]:
    content = {
        "sixfold_tuning": 1, "model": "lenet5", "model_args": "", "shape": [1, 28, 28],
        "classes": 10, "precision": "float32",
        "entries": [{"batch_size": 60, "shards": 1, "micro_batch": 7}],
    }  # fmt: skip
    return content | changes


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(tuning(**changes)))
    return path


def settings(folder: Path, file: Path | None, *, steps: int = 2, **compute: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data=SPEC),
        model=ModelConfig(model="lenet5"),
        training=TrainingConfig(batch_size=60, steps=steps, shards=1, evaluate_every=0.0),
        compute=ComputeConfig(tuning=None if file is None else str(file), **compute),
        engine=EngineConfig(engine="inline", workers=1),
        run=RunConfig(out=str(folder / "run"), checkpoint_every=1),
    )


def test_the_benchmark_writes_what_a_training_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "SAMPLE_S", 0.001)
    lines: list[str] = []
    run(
        "tune",
        BenchConfig(
            bench=TrainBenchConfig(
                data=SPEC, model="lenet5", batches="20,60", repeats=1, out=str(tmp_path / "b")
            ),
            parts=PartsBenchConfig(shards=1),
        ),
        show=lines.append,
    )
    file = tmp_path / "b" / "tuning.json"
    found = read_tuning(file)
    assert [entry["batch_size"] for entry in found["entries"]] == [20, 60]
    assert list(found["entries"][0]["us_per_image"]) == ["whole", "8", "16"]
    for entry in found["entries"]:
        medians = {name: m["median"] for name, m in entry["us_per_image"].items()}
        chosen = "whole" if entry["micro_batch"] is None else str(entry["micro_batch"])
        assert medians[chosen] == min(medians.values())
    assert {"processor", "cores", "platform"} == set(found["machine"])
    assert any(str(file) in line for line in lines)
    result = train(settings(tmp_path, file))
    assert result["micro_batch"] == found["entries"][1]["micro_batch"]


def test_networks_that_are_never_cut_are_refused(tmp_path: Path) -> None:
    config = BenchConfig(bench=TrainBenchConfig(
        data="synthetic:64x1x8x8", model="resnet20", batches="64", out=str(tmp_path / "b")
    ))  # fmt: skip
    with pytest.raises(UserError, match=r"nothing to tune, because layer 'stem.1' \(BatchNorm2d"):
        run("tune", config, show=print)
    assert not (tmp_path / "b").exists()


def test_a_training_takes_the_file_and_keeps_its_content(tmp_path: Path) -> None:
    file = write(tmp_path / "tuning.json")
    tuned = train(settings(tmp_path / "a", file))
    assert tuned["micro_batch"] == 7
    by_hand = train(settings(tmp_path / "b", None, micro_batch="7"))
    assert tuned["weights_sha256"] == by_hand["weights_sha256"]
    kept = json.loads((tmp_path / "a" / "run" / "tuning.json").read_text())
    assert kept == json.loads(file.read_text())
    config = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert config["compute"]["tuning"] == str(file)


@pytest.mark.parametrize("then", ["changed", "gone"])
def test_a_resumed_run_goes_on_with_what_it_began_with(tmp_path: Path, then: str) -> None:
    file = write(tmp_path / "tuning.json")
    whole = train(settings(tmp_path / "whole", file, steps=4))
    config = settings(tmp_path / "cut", file, steps=4)
    train(config)
    folder = tmp_path / "cut" / "run"
    (folder / "result.json").unlink()
    (folder / "model.safetensors").unlink()
    for checkpoint in sorted((folder / "checkpoints").iterdir())[1:]:
        checkpoint.unlink()
    if then == "gone":
        file.unlink()
    else:
        write(file, entries=[{"batch_size": 60, "shards": 1, "micro_batch": 20}])
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True))
    notes: list[str] = []
    result = train(
        config, on_event=lambda e: notes.append(e["text"]) if e["kind"] == "note" else None
    )
    assert result["micro_batch"] == 7
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert any("is not what it was when the run began" in text for text in notes)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": "slide"}, "was made for --model slide, not lenet5"),
    ({"model_args": "init=he"}, "was made for --model-args init=he, not ''"),
    ({"precision": "bf16"}, "was made for --precision bf16, not float32"),
    ({"shape": [3, 32, 32]}, "was made for images of 3x32x32, not 1x28x28"),
    ({"classes": 2}, "was made for classes: 2, not 10"),
    (
        {"entries": [{"batch_size": 20, "shards": None, "micro_batch": 7}]},
        "was made for --batch-size 20, not --batch-size 60 --shards 1",
    ),
    ({"entries": []}, "has no entries"),
    ({"entries": [{"batch_size": 60}]}, "entry 0 has no batch_size, shards and micro_batch"),
    (
        {"entries": [{"batch_size": 60, "shards": 1, "micro_batch": 0}]},
        "entry 0 has the micro-batch 0, which is no number of images",
    ),
    ({"sixfold_tuning": 2}, "version 2, this Sixfold reads version 1"),
    ({"sixfold_tuning": None}, "is no file of `python -m benchmarks.bench tune`"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_files_for_something_else_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = write(tmp_path / "tuning.json", **changes)
    with pytest.raises(UserError) as caught:
        train(settings(tmp_path, file))
    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_what_is_no_file_or_no_json_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tuning.json"
    words = ["train", "--engine", "inline", "--workers", "1", "--resize", "28", "--steps", "1"]
    words += ["--tuning", str(file), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "tuning.json: No such file or directory" in capsys.readouterr().err
    file.write_text("{")
    assert main(words) == 2
    assert "is no JSON" in capsys.readouterr().err
    assert main([*words, "--micro-batch", "8"]) == 2
    assert "--micro-batch and --tuning exclude each other" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert DataConfig(data=SPEC).problems() == []
