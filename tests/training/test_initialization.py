"""Trainings that begin with given weights, under a mask, in the middle of the schedule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sixfold.core.errors import UserError
from sixfold.models import build
from sixfold.training.checkpoint import list_checkpoints
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.sparsity import load_mask, magnitude_mask, prunable, prune_counts, save_mask
from sixfold.training.sparsity.initialization import put_weights

Configure = Callable[..., TrainConfig]

PLAIN: dict[str, Any] = {"momentum": 0.0, "schedule": "cosine", "augment": "crop:1", "steps": 12}


@pytest.fixture
def dense(configure: Configure, tmp_path: Path) -> Path:
    """A run without momentum that keeps its weights before step 0 and after steps 5 and 12."""
    out = tmp_path / "dense"
    train(configure(out=str(out), save_at_steps=("0", "5", "12"), **PLAIN))
    return out


@pytest.fixture
def mask(dense: Path, configure: Configure, tmp_path: Path) -> Path:
    """Half of the dense run's weights, the larger ones."""
    network = build(configure().model, shape=(3, 8, 8), classes=10, seed=0)
    layers = prunable(network)
    weights = load_file(dense / "model.safetensors")
    save_mask(tmp_path / "mask", magnitude_mask(weights, prune_counts(layers, 0.5)))
    return tmp_path / "mask"


def snapshot(run: Path, step: int) -> str:
    return str(run / "snapshots" / f"step-{step:09d}.safetensors")


def test_snapshots_stay(dense: Path, configure: Configure) -> None:
    names = [path.name for path in list_checkpoints(dense / "snapshots")]
    assert names == [f"step-{step:09d}.safetensors" for step in (0, 5, 12)]
    fresh = build(configure().model, shape=(3, 8, 8), classes=10, seed=0).state_dict()
    first, last = load_file(snapshot(dense, 0)), load_file(snapshot(dense, 12))
    final = load_file(dense / "model.safetensors")
    for name, tensor in fresh.items():
        assert torch.equal(first[f"model.{name}"], tensor)
        assert torch.equal(last[f"model.{name}"], final[name])


@pytest.mark.parametrize("step", [0, 5])
def test_a_training_from_a_snapshot_ends_where_the_whole_one_does(
    dense: Path, configure: Configure, tmp_path: Path, step: int
) -> None:
    again = train(
        configure(
            out=str(tmp_path / "again"), weights=snapshot(dense, step), start_step=step, **PLAIN
        )
    )
    whole = train(configure(out=str(dense), **PLAIN))
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert again["images"] == (12 - step) * 40


def test_weights_of_a_run_can_be_begun_with(
    dense: Path, configure: Configure, tmp_path: Path
) -> None:
    train(configure(out=str(tmp_path / "on"), weights=str(dense), steps=1, lr=0.0))
    assert_equal(load_file(tmp_path / "on" / "model.safetensors"), dense)


def assert_equal(found: dict[str, torch.Tensor], run: Path) -> None:
    for name, tensor in load_file(run / "model.safetensors").items():
        assert torch.equal(found[name], tensor)


def test_removed_weights_stay_zero_and_the_bits_do_not_depend_on_workers_or_a_resume(
    dense: Path, mask: Path, configure: Configure, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "weights": snapshot(dense, 5),
        "mask": str(mask),
        "start_step": 5,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "steps": 12,
    }
    one = train(configure(out=str(tmp_path / "one"), **settings))
    two = train(configure(out=str(tmp_path / "two"), workers=2, checkpoint_every=4, **settings))
    assert one["weights_sha256"] == two["weights_sha256"]
    kept = load_mask(mask)
    weights = load_file(tmp_path / "one" / "model.safetensors")
    for name, keep in kept.items():
        assert not weights[name][~keep].any()
    (tmp_path / "two" / "result.json").unlink()
    list_checkpoints(tmp_path / "two" / "checkpoints")[-1].unlink()
    again = train(configure(out=str(tmp_path / "two"), workers=3, resume=True, **settings))
    assert again["weights_sha256"] == one["weights_sha256"]


def test_files_that_do_not_fit_are_refused(
    dense: Path, mask: Path, configure: Configure, tmp_path: Path
) -> None:
    other: dict[str, Any] = {"out": str(tmp_path / "other"), "model": "lenet300"}
    with pytest.raises(UserError, match=r"does not fit the network: it needs fc1.weight"):
        train(configure(weights=str(dense), **other))
    with pytest.raises(UserError, match="does not fit the network: the mask has"):
        train(configure(mask=str(mask), **other))
    with pytest.raises(UserError, match="no weights can be read"):
        train(configure(weights=str(tmp_path / "nothing"), **other))
    assert not (tmp_path / "other" / "config.json").exists()


@pytest.mark.parametrize("own", [True, False])
def test_an_older_run_outlives_a_beginning_that_is_refused(
    dense: Path, configure: Configure, tmp_path: Path, own: bool
) -> None:
    weights = dense if own else tmp_path / "nowhere"
    before = (dense / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="emptied first" if own else "no weights can be read"):
        train(configure(out=str(dense), weights=str(weights), overwrite=True, **PLAIN))
    assert (dense / "model.safetensors").read_bytes() == before
    assert (dense / "result.json").exists()


def test_settings_that_make_no_sense_are_refused_together(configure: Configure) -> None:
    with pytest.raises(UserError) as info:
        train(configure(start_step=7, steps=7, save_at_steps=("5", "x")))
    assert len(info.value.problems) == 2


def test_another_number_of_classes_begins_with_a_new_head(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(
        out=str(tmp_path / "run"), weights=str(tmp_path / "w.pth"), lr=0.0, steps=1, workers=2
    )
    before, fresh = (
        build(config.model, shape=(3, 8, 8), classes=classes, seed=seed).state_dict()
        for classes, seed in ((3, 7), (10, 0))
    )
    torch.save(before, tmp_path / "w.pth")
    told: list[Any] = []
    train(config, on_event=told.append)
    (line,) = [e["text"] for e in told if e["kind"] == "note" and "head" in e["text"]]
    assert "has 3 outputs, here 10: it is initialised afresh" in line
    after = load_file(tmp_path / "run" / "model.safetensors")
    *_, weight, bias = fresh
    for name, tensor in after.items():
        expected = fresh[name] if name in (weight, bias) else before[name]
        assert torch.equal(tensor, expected), name


def test_a_head_that_takes_other_features_is_refused(configure: Configure, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    state = network.state_dict() | {"2.weight": torch.zeros(5, 4), "2.bias": torch.zeros(5)}
    with pytest.raises(UserError) as caught:
        put_weights(state, network, "w.pth")
    said = "it needs 2.weight (2, 3), has (5, 4); 2.bias (2,), has (5,)"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "strategy",
    [
        {"strategy": "local_sgd"},
        {"strategy": "hogwild"},
        {"strategy": "param_server"},
        {"strategy": "model_parallel", "grid": "rows=2"},
        {"strategy": "model_parallel", "grid": "cout=2"},
    ],
    ids=lambda given: "-".join(given.values()),
)
def test_every_strategy_begins_with_given_weights(
    strategy: dict[str, str], configure: Configure, tmp_path: Path
) -> None:
    first = train(configure(out=str(tmp_path / "first"), steps=3))
    settings = {"weights": str(tmp_path / "first"), "lr": 0.0, "steps": 1, "workers": 2}
    still = train(configure(out=str(tmp_path / "still"), seed=7, **settings, **strategy))
    assert still["weights_sha256"] == first["weights_sha256"]
