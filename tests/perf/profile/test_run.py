"""`sixfold profile`, end to end on the inline and local engines."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.spark_masters import EngineProcess

from sixfold.cli import main
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.perf.profile.config import ProfileConfig, ProfiledTrainingConfig, ProfilingConfig
from sixfold.perf.profile.limits import save_machine
from sixfold.perf.profile.machine import measure_machine
from sixfold.perf.profile.run import profile, profile_of_run


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("machine") / "machine.json"
    save_machine(measure_machine(window_s=0.01, precisions=("float32",)), path)
    return path


def measured(machine: Path, out: Path, *words: str) -> dict[str, Any]:
    fixed = ["--data", "synthetic:64x3x32x32", "--batch-size", "16", "--repeats", "1"]
    code = main(["profile", *fixed, "--machine-peaks", str(machine), "--out", str(out), *words])
    assert code == 0
    found: dict[str, Any] = json.loads((out / "profile.json").read_text())
    return found


def test_layers_steps_and_ranks(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p"
    words = ("--model", "slide", "--engine", "inline", "--workers", "2")
    found = measured(machine, out, *words)
    layers = {layer["name"]: layer for layer in found["layers"]}
    conv = layers["features.0"]
    # Of 16 images each of two ranks has half.
    assert conv["forward_flops"] == 2 * 8 * 32 * 32 * 32 * 75
    assert conv["forward_s"] > 0
    assert conv["backward_s"] > 0
    assert {f["function"] for f in conv["functions"]} >= {"aten::convolution"}
    step = found["step"]
    parts = ("forward", "backward", "around", "data", "communication", "waiting", "update")
    attributed = sum(step[f"{name}_s"] for name in parts)
    assert attributed + step["unattributed_s"] == pytest.approx(step["clock_s"], rel=0.2)
    assert [memory["rank"] for memory in found["memory"]] == [0, 1]
    assert found["memory"][0]["step_peak_bytes"] > found["memory"][0]["activations_bytes"] > 0
    assert len(found["utilisation"]) == 2
    events = json.loads((out / "trace.json").read_text())["traceEvents"]
    assert {event["pid"] for event in events} >= {1, 2}
    assert any(event.get("cat") == "operator" for event in events)
    text = capsys.readouterr().out
    assert "features.0" in text
    assert "what timing costs" in text
    assert main(["profile", *_again(machine, out), *words]) == 0  # finished: shown again
    assert main(["profile", *_again(machine, out), *words, "--seed", "3"]) == 2


def _again(machine: Path, out: Path) -> list[str]:
    fixed = ["--data", "synthetic:64x3x32x32", "--batch-size", "16", "--repeats", "1"]
    return [*fixed, "--machine-peaks", str(machine), "--out", str(out)]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--strategy", "hogwild"), marks=pytest.mark.full),
        ("--strategy", "local_sgd", "--local-steps", "2"),
        pytest.param(("--strategy", "model_parallel", "--grid", "rows=2"), marks=pytest.mark.full),
        pytest.param(("--batch-norm", "sync"), marks=pytest.mark.full),
    ],
)
def test_every_group_strategy(machine: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    engine = ("--engine", "local" if "hogwild" in words else "inline", "--workers", "2")
    found = measured(machine, tmp_path / "p", "--model", "resnet20", *engine, *words)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["stem.0"]["forward_flops"] > 0
    assert layers["stem.0"]["forward_s"] > 0
    assert layers["stem.0"]["backward_s"] > 0
    assert found["step"]["backward_s"] > 0


@pytest.mark.full
def test_parameter_servers_train_as_always_and_layers_are_timed_beside(
    machine: Path, tmp_path: Path
) -> None:
    words = ("--model", "slide", "--workers", "2", "--strategy", "param_server")
    found = measured(machine, tmp_path / "p", *words)
    assert found["layers"]
    assert len(found["utilisation"]) == 2
    assert sum(use["seconds"]["scheduler"] for use in found["utilisation"]) > 0


@pytest.mark.full
@pytest.mark.spark
def test_on_spark(machine: Path, tmp_path: Path, spark_local: EngineProcess) -> None:
    config = ProfileConfig(
        profiling=ProfilingConfig(repeats=1, machine_peaks=str(machine), out=str(tmp_path / "p")),
        data=DataConfig(data="synthetic:64x3x32x32"),
        model=ModelConfig(model="slide"),
        training=ProfiledTrainingConfig(batch_size=32),
        engine=EngineConfig(engine="spark", workers=2),
    )
    found = profile(config, engine=spark_local)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["features.0"]["backward_s"] > 0
    assert [use["rank"] for use in found["utilisation"]] == [0, 1]
    assert found["engine"] == "spark"


@pytest.mark.full
def test_engines_side_by_side(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", "slide", "--workers", "1", "--compare-engines", "inline,local")
    found = measured(machine, tmp_path / "p", *words)
    assert set(found["sides"]) == {"inline", "local"}
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["inline", "local"]
    assert rows[0].split() == ["workers", "1", "1"]


def test_a_finished_run_is_only_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["--data", "synthetic:64x3x32x32", "--model", "slide", "--engine", "inline"]
    assert main(["train", *words, "--workers", "2", "--steps", "3", "--out", str(out)]) == 0
    before = (out / "result.json").read_bytes()
    assert main(["profile", str(out)]) == 0
    found = profile_of_run(out)
    assert [use["steps"] for use in found["utilisation"]] == [3, 3]
    assert (out / "trace.json").exists()
    assert (out / "result.json").read_bytes() == before
    assert "straggler" in capsys.readouterr().out


def test_wrong_input_is_told_all_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "--repeats", "0", "--compare-engines", "local,gpu"]) == 2
    text = capsys.readouterr().err
    assert "--repeats 0" in text
    assert "no engine gpu" in text
    assert main(["profile", "--strategy", "auto"]) == 2
    assert "`sixfold plan`" in capsys.readouterr().err
    assert main(["profile", "--machine-peaks", str(tmp_path / "no" / "file.json")]) == 2
    assert "in a directory that exists" in capsys.readouterr().err
    assert main(["profile", "--model", "nonsense", "--batch-size", "0"]) == 2
    text = capsys.readouterr().err
    assert "nonsense" in text
    assert "--batch-size 0" in text
    assert main(["profile", str(tmp_path / "absent")]) == 2
    assert main(["profile", str(tmp_path)]) == 2
    assert main(["profile", str(tmp_path), "--model", "slide"]) == 2
    assert "leave RUN away" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
