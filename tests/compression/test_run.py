"""A whole compression from the launcher's side: stages, files, resuming, searching, refusals."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.spark_masters import EngineProcess

import sixfold
from sixfold.compression import run as compression
from sixfold.compression import search
from sixfold.compression.codec.container import read_container
from sixfold.compression.config import CompressConfig, CompressionConfig
from sixfold.compression.run import compress
from sixfold.core.errors import UserError
from sixfold.distributed.config import EngineConfig
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.sparsity.initialization import read_weights

Configure = Callable[..., TrainConfig]


def config_of(
    run: Path, out: Path, *, engine: str = "inline", workers: int = 1, **changes: Any
) -> CompressConfig:
    """Settings of a small compression."""
    settings: dict[str, Any] = {
        "run": str(run),
        "out": str(out),
        "rounds": 2,
        "prune_epochs": 1.0,
        "share_epochs": 1.0,
        "sparsity": "0.8",
        "bits": "4",
    }
    return CompressConfig(
        compression=CompressionConfig(**settings | changes),
        engine=EngineConfig(engine=engine, workers=workers),
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, trained until it knows its classes."""
    out = tmp_path_factory.mktemp("dense") / "run"
    train(
        sixfold.configure(
            data="digits",
            model="lenet300",
            lr=0.1,
            batch_size=50,
            epochs=4,
            validation=0.2,
            engine="inline",
            workers=1,
            out=str(out),
        )
    )
    return out


@pytest.fixture(scope="module")
def compressed(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, compressed."""
    out = tmp_path_factory.mktemp("compressed") / "out"
    compress(config_of(dense, out))
    return out


def test_every_stage_is_smaller_and_the_network_still_knows_its_classes(compressed: Path) -> None:
    result = json.loads((compressed / "result.json").read_text())
    dense, stages = result["dense"], result["stages"]
    assert [stage["stage"] for stage in stages] == ["prune", "share", "code"]
    sizes = [dense["bytes"], *(stage["bytes"] for stage in stages)]
    assert sizes == sorted(sizes, reverse=True)
    for stage in stages:
        assert stage["bytes"] == (compressed / stage["file"]).stat().st_size
        assert stage["ratio"] == pytest.approx(dense["bytes"] / stage["bytes"], abs=1e-3)
    assert dense["test_accuracy"] > 0.85
    assert stages[-1]["test_accuracy"] > dense["test_accuracy"] - 0.06
    assert result["ratio"] > 12
    assert 1 <= result["stream_bytes"] / result["entropy_bytes"] < 1.1
    assert "lenet300" in (compressed / "report.html").read_text()


def test_layers_keep_and_share_exactly_what_was_asked_for(compressed: Path) -> None:
    result = json.loads((compressed / "result.json").read_text())
    tensors = sixfold.load(compressed / "model.sixz").state_dict()
    for row in result["layers"]:
        if row["name"].endswith(".weight"):
            weights = tensors[row["name"]]
            assert int((weights != 0).sum()) == row["kept"] == round(weights.numel() * 0.2)
            assert len(set(weights[weights != 0].tolist())) == row["values"] <= 15
    plain = read_weights(compressed / "model.safetensors")
    assert all(torch.equal(plain[name], tensor) for name, tensor in tensors.items())


def test_frozen_weights_are_left_alone_and_tied_ones_stay_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "knotted.py").write_text(
        "from torch import nn\n"
        "def network(shape, classes):\n"
        "    first, a, b = nn.Linear(64, 20), nn.Linear(20, 20), nn.Linear(20, 20)\n"
        "    first.requires_grad_(False)\n"
        "    b.weight = a.weight\n"
        "    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), a, nn.ReLU(), b, nn.ReLU(),\n"
        "        nn.Linear(20, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"data": "digits", "model": "knotted:network", "steps": 3}
    settings |= {"engine": "inline", "workers": 1, "out": str(tmp_path / "run")}
    train(sixfold.configure(**settings))
    compress(config_of(tmp_path / "run", tmp_path / "out", rounds=1, prune_epochs=0.1))
    before = read_weights(tmp_path / "run")
    after = sixfold.load(tmp_path / "out" / "model.sixz").state_dict()
    assert torch.allclose(after["1.weight"], before["1.weight"], rtol=1e-3)  # of 16 bits
    assert torch.equal(after["3.weight"], after["5.weight"])
    shared = after["3.weight"]
    assert len(set(shared[shared != 0].tolist())) <= 15
    assert int((shared != 0).sum()) == 80


def test_workers_and_engine_do_not_alter_a_byte(
    dense: Path, compressed: Path, tmp_path: Path
) -> None:
    compress(config_of(dense, tmp_path / "out", engine="local", workers=2))
    for name in ("pruned.sixz", "shared.sixz", "model.sixz"):
        assert (tmp_path / "out" / name).read_bytes() == (compressed / name).read_bytes()


def test_prediction_takes_the_compressed_file(
    dense: Path, compressed: Path, tmp_path: Path
) -> None:
    from sixfold.prediction.config import PredictConfig, PredictionConfig

    accuracies = []
    for name in ("model.sixz", "model.safetensors"):
        settings = PredictionConfig(
            run=str(compressed / name), data="digits", split="test", out=str(tmp_path / name)
        )
        figures = sixfold.predict(
            PredictConfig(prediction=settings, engine=EngineConfig(engine="inline", workers=1))
        )
        accuracies.append(figures["accuracy"])
    result = json.loads((compressed / "result.json").read_text())
    assert accuracies == [result["stages"][-1]["test_accuracy"]] * 2


def test_coding_alone_loses_nothing(dense: Path, tmp_path: Path) -> None:
    result = compress(config_of(dense, tmp_path / "out", stages="code", coder="ans"))
    before = read_weights(dense)
    after = sixfold.load(tmp_path / "out" / "model.sixz").state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert 1.05 < result["ratio"] < 2


def test_sharing_alone_keeps_all_weights(dense: Path, tmp_path: Path) -> None:
    result = compress(config_of(dense, tmp_path / "out", stages="share", share_epochs=0.0))
    assert (tmp_path / "out" / "model.sixz").read_bytes() == (
        tmp_path / "out" / "shared.sixz"
    ).read_bytes()
    tensors = sixfold.load(tmp_path / "out").state_dict()
    assert (tensors["fc1.weight"] != 0).float().mean() > 0.99
    assert len(np.unique(tensors["fc1.weight"].numpy())) <= 16
    assert 7 < result["ratio"] < 9


@pytest.mark.full
def test_a_compression_goes_on_where_it_was(
    dense: Path, compressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    config = config_of(dense, out)
    monkeypatch.setattr(compression, "_figures", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        compress(config)
    monkeypatch.undo()
    # As if the last training had been cut off.
    (out / "share" / "result.json").unlink()
    (out / "share" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="--resume"):
        compress(config)
    first = (out / "prune-01" / "result.json").stat().st_mtime_ns
    resumed = dataclasses.replace(
        config, compression=dataclasses.replace(config.compression, resume=True)
    )
    compress(resumed)
    assert (out / "prune-01" / "result.json").stat().st_mtime_ns == first
    assert (out / "model.sixz").read_bytes() == (compressed / "model.sixz").read_bytes()
    assert compress(config) == json.loads((out / "result.json").read_text())


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.full
def test_a_search_finds_a_small_file_within_the_bound(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FIRST_PARTS", (0.3, 0.1))
    monkeypatch.setattr(search, "REFINEMENTS", 1)
    out = tmp_path / "out"
    config = config_of(dense, out, engine="local", workers=2, max_accuracy_loss=0.03, rounds=1)
    result = compress(config)
    target = result["search"]["target"]
    assert target == pytest.approx(result["dense"]["validation_accuracy"] - 0.03)
    assert result["stages"][-1]["validation_accuracy"] >= target
    reached = [trial for trial in result["search"]["trials"] if trial["reached"]]
    assert result["bytes"] == min(trial["bytes"] for trial in reached)
    assert result["bytes"] == (out / "model.sixz").stat().st_size
    chosen = min(reached, key=lambda trial: trial["bytes"])
    kept = sum(row["kept"] for row in result["layers"] if row["name"].endswith(".weight"))
    total = sum(row["weights"] for row in result["layers"] if row["name"].endswith(".weight"))
    assert kept / total == pytest.approx(chosen["kept"], rel=0.02)
    assert read_container(out / "model.sixz").size_bytes == result["bytes"]


FACTORY = '''
"""A network with a parameter that belongs to no convolution, linear layer or batch-norm."""
import torch
from torch import nn

class Mixed(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.mix = nn.Parameter(torch.randn(6, 12) / 3)
        self.head = nn.Linear(12, num_classes)

    def forward(self, images):
        features = self.norm(self.conv(images)).relu().mean((2, 3))
        return self.head(features @ self.mix)

def mixed(num_classes):
    return Mixed(num_classes)
'''


def test_parameters_of_other_kinds_are_named_and_stored_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_mixed.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    settings = {"data": "digits", "model": "own_mixed:mixed", "steps": 5, "batch_size": 64}
    train(sixfold.configure(**settings, engine="inline", workers=1, out=str(run)))
    heard: list[Any] = []
    out = tmp_path / "out"
    result = compress(config_of(run, out, rounds=1, share_epochs=0.0), on_event=heard.append)
    assert result["unsupported"] == ["mix"]
    assert any("mix is no weight of" in event.get("text", "") for event in heard)
    assert "mix is no weight of" in (out / "report.html").read_text()
    tensors = sixfold.load(out / "model.sixz").state_dict()
    pruned = read_weights(out / "prune-01")
    assert torch.allclose(tensors["mix"], pruned["mix"], atol=1e-3)
    assert int((tensors["mix"] != 0).sum()) == 72
    assert tensors["norm.num_batches_tracked"] == pruned["norm.num_batches_tracked"]


def test_the_report_can_be_written_again(compressed: Path) -> None:
    from sixfold.studies.report.command import rewrite_report

    before = (compressed / "report.html").read_bytes()
    (compressed / "report.html").unlink()
    assert rewrite_report(compressed).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": ""}, "give the run to compress"),
        ({"stages": "prune,shar"}, "did you mean share"),
        ({"sparsity": "1.5"}, "--sparsity: '1.5' is no part"),
        ({"sparsity": "fc9=0.5"}, "there is no layer 'fc9'"),
        ({"bits": "12"}, "--bits: '12' is no number of bits"),
        ({"rounds": 0}, "--rounds 0"),
        ({"scope": "global", "sparsity": "fc1=0.3"}, "--scope global"),
        ({"coder": "zip"}, "--coder zip"),
        ({"max_accuracy_loss": 2.0}, "--max-accuracy-loss 2.0"),
        ({"run": "/nowhere/at/all"}, "there is no run"),
        ({"data": "mnist:/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_settings_are_refused_and_nothing_is_written(
    dense: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    config = config_of(dense, tmp_path / "out")
    changed = dataclasses.replace(config.compression, **changes)
    with pytest.raises(UserError) as caught:
        compress(dataclasses.replace(config, compression=changed))
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_compressed_file_is_not_compressed_again(compressed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is compressed already"):
        compress(config_of(compressed / "model.sixz", tmp_path / "out"))


def test_several_problems_are_told_at_once(dense: Path, tmp_path: Path) -> None:
    config = config_of(dense, tmp_path / "out", rounds=0, share_lr=-1.0, stages="x")
    with pytest.raises(UserError) as caught:
        compress(config)
    assert len(caught.value.problems) == 3


def test_weights_without_settings_beside_need_data(dense: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    shutil.copyfile(dense / "model.safetensors", lone)
    with pytest.raises(UserError, match="--data"):
        compress(config_of(lone, tmp_path / "out"))
    result = compress(config_of(lone, tmp_path / "out", data="digits", stages="code"))
    assert result["stages"][0]["test_accuracy"] > 0.85


def test_onnx_computes_the_same_in_onnxruntime(dense: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra onnx")
    import onnxruntime

    path = tmp_path / "model.onnx"
    compress(config_of(dense, tmp_path / "out", stages="code", onnx=str(path)))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):  # the size of the batch is free
        images = torch.randn(count, 1, 8, 8)
        (found,) = session.run(["scores"], {"images": images.numpy()})
        with torch.no_grad():
            expected = sixfold.load(dense).network(images).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_onnx_without_its_packages_is_refused_with_the_remedy(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    config = config_of(dense, tmp_path / "out", stages="code", onnx=str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=r"--onnx: .* pip install 'sixfold\[onnx\]'"):
        compress(config)


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize("master", ["spark_cluster"])
def test_spark_compresses_to_the_same_bytes(
    dense: Path, compressed: Path, tmp_path: Path, master: str, request: pytest.FixtureRequest
) -> None:
    engine: EngineProcess = request.getfixturevalue(master)
    compress(config_of(dense, tmp_path / "out", engine="spark", workers=2), engine=engine)
    for name in ("pruned.sixz", "shared.sixz", "model.sixz"):
        assert (tmp_path / "out" / name).read_bytes() == (compressed / name).read_bytes()


@pytest.mark.full
@pytest.mark.spark
def test_a_search_runs_on_spark(
    dense: Path, tmp_path: Path, spark_local: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FIRST_PARTS", (0.3, 0.1))
    monkeypatch.setattr(search, "REFINEMENTS", 1)
    found = [
        compress(
            config_of(
                dense, tmp_path / name, engine=name, workers=2, max_accuracy_loss=0.03, rounds=1
            ),
            engine=engine,
        )
        for name, engine in (("spark", spark_local), ("local", None))
    ]
    files = [(tmp_path / name / "model.sixz").read_bytes() for name in ("spark", "local")]
    assert files[0] == files[1]
    assert found[0]["search"]["target"] == found[1]["search"]["target"]
