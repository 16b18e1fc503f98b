"""MLflow against a local SQLite store, read back by MLflow's own client and loader."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sixfold
from sixfold.core.run_directory import read_json_lines
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

for package in ("mlflow", "sqlalchemy", "alembic", "pandas"):
    pytest.importorskip(package, reason="needs the extra track")

Configure = Callable[..., TrainConfig]

LOAD = """
import sys, numpy, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2])))
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return tmp_path


def client() -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def runs() -> list[Any]:
    experiment = client().get_experiment_by_name("digits")
    return list(client().search_runs([experiment.experiment_id]))


def told(config: TrainConfig) -> tuple[dict[str, Any], list[str]]:
    notes: list[Any] = []
    result = train(config, on_event=notes.append)
    return result, [note["text"] for note in notes if "--track" in note.get("text", "")]


def history(run: Any, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client().get_metric_history(run.info.run_id, name)]


def test_a_run_and_its_continuation(configure: Configure, store: Path) -> None:
    own = {"out": str(store / "run"), "track": "mlflow", "validation": 0.2, "evaluate_every": 1.0}
    _, notes = told(configure(**own, steps=4))
    assert notes == []
    result, notes = told(configure(**own, steps=6, resume=True, workers=2))
    assert notes == []
    (run,) = runs()
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["batch_size"] == "40"
    assert run.data.params["steps"] == "4"
    assert "steps: 4 -> 6" in run.data.tags["sixfold.changed_settings"]
    assert run.data.tags["sixfold.weights_sha256"] == result["weights_sha256"]
    lines = read_json_lines(store / "run" / "metrics.jsonl")
    losses = [(line["step"], line["loss"]) for line in lines if "part" not in line]
    assert history(run, "train/loss") == losses
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert {step for step, _ in history(run, "validation/accuracy")} == {4, 6}
    assert run.data.metrics["result/test_accuracy"] == result["test_accuracy"]
    names = {file.path for file in client().list_artifacts(run.info.run_id)}
    assert names == {"config.json", "report.html", "model.safetensors", "model"}


def test_the_model_loads_with_mlflow_elsewhere(store: Path) -> None:
    import mlflow

    (store / "mine.py").write_text(
        "from torch import nn\n\n\n"
        "def net(classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), "
        "nn.Flatten(), nn.Linear(4, classes))\n"
    )
    notes: list[Any] = []
    result = sixfold.train(
        "mine.py:net",
        "synthetic:200x3x8x8",
        steps=3,
        engine="inline",
        workers=1,
        out=str(store / "run"),
        track="mlflow",
        on_event=notes.append,
    )
    assert not [note for note in notes if "--track" in note.get("text", "")]
    (run,) = runs()
    uri = f"runs:/{run.info.run_id}/model"
    info = mlflow.models.get_model_info(uri)
    (given,), (answered,) = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (given.type, given.shape) == (np.dtype("uint8"), (-1, 3, 8, 8))
    assert (answered.type, answered.shape) == (
        np.dtype("float32"),
        (-1, len(result.model().classes)),
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    np.save(store / "images.npy", images)
    local = mlflow.artifacts.download_artifacts(uri, dst_path=str(store / "copy"))
    elsewhere = store / "elsewhere"
    elsewhere.mkdir()
    words = [local, store / "images.npy", store / "found.npy"]
    command = [sys.executable, "-c", LOAD, *map(str, words)]
    subprocess.run(command, check=True, cwd=elsewhere, timeout=100)
    found = np.load(store / "found.npy")
    np.testing.assert_array_equal(found, result.predict(images).probabilities)


def test_a_network_without_a_module_loads_too(store: Path) -> None:
    import mlflow
    from torch import nn

    result = sixfold.train(
        lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(192, classes)),
        "synthetic:200x3x8x8",
        steps=2,
        engine="inline",
        workers=1,
        out=str(store / "run"),
        track=["mlflow"],
    )
    (run,) = runs()
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    images = np.zeros((2, 3, 8, 8), np.uint8)
    np.testing.assert_array_equal(model.predict(images), result.predict(images).probabilities)


def test_another_store_gets_the_whole_run(
    configure: Configure, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"out": str(store / "run"), "track": "mlflow"}
    told(configure(**own, steps=3))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/other.db")
    told(configure(**own, steps=5, resume=True))
    (run,) = runs()
    assert run.data.params["steps"] == "5"
    assert [step for step, _ in history(run, "train/loss")] == [1, 2, 3, 4, 5]


def test_a_server_that_is_not_there_is_told(
    configure: Configure, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result, notes = told(configure(out=str(store / "run"), track="mlflow"))
    assert result["steps"] == 6
    assert "not sent: metrics of steps 1 to 6, settings, config.json, result" in notes[-1]
    assert "the same command sends it again" in notes[-1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    again, notes = told(configure(out=str(store / "run"), track="mlflow"))
    assert (again, notes) == (result, [])
    (run,) = runs()
    assert len(history(run, "train/loss")) == 6


def test_names_that_mlflow_takes() -> None:
    from sixfold.training.tracking.mlflow_store import _key

    assert _key("train/images_per_s") == "train/images_per_s"
    assert _key("logged/größe [%]") == "logged/gr__e ___"
    assert _key("logged/../a//b") == "logged/___a__b"
