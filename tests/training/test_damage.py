"""Changed bytes in a run's files are never used: an older checkpoint is, or the command refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import sixfold
from sixfold.core.errors import RunError, UserError
from sixfold.core.tensor_file import pack, read_metadata
from sixfold.prediction.config import PredictConfig, PredictionConfig
from sixfold.prediction.run import predict
from sixfold.training.checkpoint import list_checkpoints, model_tensors, weights_sha256
from sixfold.training.config import TrainConfig
from sixfold.training.model_card import load_network
from sixfold.training.run import train
from sixfold.training.sparsity import load_mask, save_mask
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.strategies.param_server.snapshots import read_snapshot

Configure = Callable[..., TrainConfig]

STRATEGIES = [
    {},
    {"strategy": "local_sgd", "local_steps": 2},
    {"strategy": "model_parallel", "grid": "rows=2", "workers": 2, "model": "slide"},
]


def flip(path: Path, place: int = -9) -> None:
    """Change a byte; the last ones are a tensor's."""
    data = bytearray(path.read_bytes())
    data[place] ^= 64
    path.write_bytes(data)


@pytest.mark.parametrize("changes", STRATEGIES, ids=lambda changes: changes.get("strategy", "sync"))
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    configure: Configure, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = {"out": str(tmp_path), "checkpoint_every": 2, **changes}
    whole = train(configure(**settings))
    (tmp_path / "result.json").unlink()
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    flip(newest)
    notes: list[str] = []
    again = train(
        configure(resume=True, **settings),
        on_event=lambda event: notes.append(str(event.get("text"))),
    )
    assert again["weights_sha256"] == whole["weights_sha256"]
    told = [note for note in notes if "is damaged" in note]
    assert len(told) == 1
    assert newest.name in told[0]
    assert "going on from step-000000004" in told[0]


def test_without_a_whole_checkpoint_a_resume_is_refused(
    configure: Configure, tmp_path: Path
) -> None:
    train(configure(out=str(tmp_path)))
    (tmp_path / "result.json").unlink()
    for path in list_checkpoints(tmp_path / "checkpoints"):
        flip(path)
    with pytest.raises(UserError, match="no older checkpoint is whole"):
        train(configure(out=str(tmp_path), resume=True))


def small(out: Path, **changes: Any) -> TrainConfig:
    return sixfold.configure(
        data="synthetic:40x3x8x8",
        model="slide",
        batch_size=20,
        steps=2,
        engine="inline",
        workers=1,
        out=str(out),
        **changes,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(small(out))
    save_mask(out / "mask", {name: t > 0 for name, t in read_weights(out).items() if t.dim() > 1})
    (out / "snapshot").write_bytes(pack(read_weights(out), {"format": "1"}))
    return out


def _predict(run: Path) -> None:
    out = run / "scores.parquet"
    asked = PredictionConfig(run=str(run), data="synthetic:40x3x8x8", out=str(out))
    predict(PredictConfig(prediction=asked))


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "predict": ("model.safetensors", _predict),
    "load": ("model.safetensors", lambda run: sixfold.load(run)),
    "--weights": ("model.safetensors", read_weights),
    "--mask": ("mask", lambda run: load_mask(run / "mask")),
    "server": ("snapshot", lambda run: read_snapshot(run / "snapshot")),
}


@pytest.mark.parametrize("reader", READERS)
def test_damaged_weights_are_refused_in_one_line(run: Path, tmp_path: Path, reader: str) -> None:
    name, read = READERS[reader]
    copy = tmp_path / name
    copy.write_bytes((run / name).read_bytes())
    flip(copy)
    with pytest.raises((UserError, RunError), match="checksum of tensor") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "scores.parquet").exists()


@pytest.mark.parametrize("reader", ["predict", "load", "--weights", "train"])
@pytest.mark.parametrize("change", ["another run's", "without checksums"])
def test_weights_of_which_the_result_does_not_tell_are_refused(
    run: Path, tmp_path: Path, reader: str, change: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / "model.safetensors"
    if change == "another run's":
        train(small(tmp_path / "other", seed=5))
        shutil.copy(tmp_path / "other" / "model.safetensors", weights)
    else:
        card = read_metadata(weights)
        save_file({name: tensor + 1 for name, tensor in read_weights(run).items()}, weights, card)
    with pytest.raises(UserError, match=r"holds other weights .* than .*result.json tells of"):
        train(small(copy)) if reader == "train" else READERS[reader][1](copy)
    (copy / "result.json").unlink()
    sixfold.load(copy)


def test_the_hash_of_the_weights_is_that_of_the_file(run: Path) -> None:
    network, _ = load_network(run / "model.safetensors")
    assert weights_sha256(model_tensors(network)) == weights_sha256(read_weights(run))


DEEP = "[" * 5000
FILES = {
    "config.json": ["", DEEP, "[]", '{"training": 0}', '{"training": {"seed": []}}'],
    "attempt": ["", DEEP, '{"attempt": [], "token": "x"}', '{"attempt": "1"}'],
    "result.json": ['{"workers": []}', '{"steps": 2, "epochs": "x"}'],
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in FILES.items() for t in texts])
def test_damaged_settings_and_results_are_refused_in_a_line_that_names_the_file(
    run: Path, tmp_path: Path, name: str, text: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / name).write_text(text)
    if name == "attempt":
        (copy / "result.json").unlink()
    with pytest.raises(UserError) as caught:
        train(small(copy, resume=name != "result.json"))
    assert "Error" not in str(caught.value)
    assert name in str(caught.value) or "seed=[]: expected" in str(caught.value)


@pytest.mark.parametrize("text", ["", DEEP, "truncated"])
def test_a_result_that_cannot_be_read_is_made_anew(run: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = train(small(run))
    (copy / "result.json").write_text(text)
    again = train(small(copy, resume=True))
    assert again["weights_sha256"] == before["weights_sha256"]
