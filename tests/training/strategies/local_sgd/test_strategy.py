"""Local SGD: against a slow reference, with one worker, stopped and gone on with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.marks import quick
from torch import Tensor, nn

from sixfold import data as datasets
from sixfold import models
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.step.batches import plan_batches
from sixfold.training.strategies.local_sgd.plan import local_plan

Configure = Callable[..., TrainConfig]

LOCAL: dict[str, Any] = {
    "strategy": "local_sgd",
    "local_steps": 4,
    "workers": 3,
    "batch_size": 7,
    "steps": 18,
    "data": "synthetic:50x3x8x8",
    "lr": 0.05,
}


def merges_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "merges.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def reference(config: TrainConfig) -> dict[str, Tensor]:
    """Local SGD with the weighted mean, written with plain torch: a network and an optimizer each.

    The momentum of the workers is merged like their weights.
    """
    opened = datasets.open_data(config.data)
    plan = plan_batches(config, opened, batch_norm=False)
    workers = config.engine.workers or 1
    plans = [local_plan(plan, worker, workers) for worker in range(workers)]
    networks, optimizers = [], []
    for _ in range(workers):
        network = models.build(
            config.model, shape=opened.shape, classes=len(opened.classes), seed=0
        ).double()
        networks.append(network)
        optimizers.append(
            torch.optim.SGD(network.parameters(), lr=config.optimizer.lr, momentum=0.9)
        )
    examples = [0] * workers
    for step in range(plan.budget.total_steps):
        for worker, own in enumerate(plans):
            epoch, start, stop = own.place(step)
            if start == stop:
                continue
            chosen = own.order(epoch)[start:stop]
            images, labels = plan.make_batch(opened.train, chosen)
            optimizers[worker].zero_grad()
            loss = nn.functional.cross_entropy(networks[worker](images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizers[worker].step()
            examples[worker] += len(labels)
        done = step + 1
        if done % config.local_sgd.local_steps == 0 or done == plan.budget.total_steps:
            shares = [count / sum(examples) for count in examples]
            for group in zip(*[network.parameters() for network in networks], strict=True):
                states = [o.state[p] for o, p in zip(optimizers, group, strict=True)]
                weights = sum(s * p.data for s, p in zip(shares, group, strict=True))
                velocity = sum(
                    s * state["momentum_buffer"] for s, state in zip(shares, states, strict=True)
                )
                for parameter, state in zip(group, states, strict=True):
                    parameter.data.copy_(weights)
                    state["momentum_buffer"].copy_(velocity)
            examples = [0] * workers
    return {name: p.detach() for name, p in networks[0].named_parameters()}


@pytest.mark.parametrize("workers", [2, 3])
def test_the_mean_of_unequal_shares_equals_plain_torch(
    configure: Configure, tmp_path: Path, workers: int
) -> None:
    settings = LOCAL | {"workers": workers, "precision": "float64"}
    config = configure(out=str(tmp_path / "run"), **settings)
    train(config)
    expected = reference(config)
    found = load_file(tmp_path / "run" / "model.safetensors")
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-10, atol=1e-12), name
    counted = [merge["examples"] for merge in merges_of(tmp_path / "run")]
    assert any(len(set(counts)) > 1 for counts in counted)
    assert sum(map(sum, counted)) == sum(
        min(7, 50 - 7 * (step % 8)) for step in range(LOCAL["steps"])
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"aggregation": "mean"},
        {"aggregation": "max_delta"},
        {"aggregation": "map_delta"},
        {"aggregation": "best", "validation": 0.2},
        {"aggregation": "mean", "align": True, "post_local": 1.0},
        {"aggregation": "mean", "model": "resnet20", "model_args": "depth=8", "batch_size": 20},
        pytest.param(
            {"model": "resnet20", "model_args": "depth=8", "batch_size": 20, "batch_norm": "sync"},
            marks=pytest.mark.full,
        ),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_one_worker_is_serial_training(
    configure: Configure, tmp_path: Path, settings: dict[str, Any]
) -> None:
    plain = {name: settings[name] for name in settings if name not in LOCAL_ONLY}
    plain |= {"data": LOCAL["data"], "batch_size": settings.get("batch_size", 7), "steps": 18}
    serial = train(configure(out=str(tmp_path / "serial"), **plain))
    alone = LOCAL | {"workers": 1, "lr": 0.01} | settings
    found = train(configure(out=str(tmp_path / "local"), **alone))
    assert found["weights_sha256"] == serial["weights_sha256"]
    assert found["images"] == serial["images"]


LOCAL_ONLY = ("aggregation", "align", "post_local")


def test_every_image_belongs_to_one_worker_and_is_seen_once_an_epoch(configure: Configure) -> None:
    config = configure(**LOCAL)
    opened = datasets.open_data(config.data)
    plan = plan_batches(config, opened, batch_norm=False)
    plans = [local_plan(plan, worker, 3) for worker in range(3)]
    assert sorted(np.concatenate([own.share for own in plans]).tolist()) == list(range(50))
    for epoch in range(2):
        for own in plans:
            assert sorted(own.order(epoch).tolist()) == own.share.tolist()
            first = epoch * plan.budget.steps_per_epoch
            steps = range(first, first + plan.budget.steps_per_epoch)
            assert sum(own.samples(step) for step in steps) == len(own.share)
            shards = list(own.between(steps.start, steps.stop))
            assert sum(len(shard.labels) for shard in shards) == len(own.share)


STOPPED: dict[str, dict[str, Any]] = {
    "mean": {"aggregation": "mean", "compare_serial": True, "model_args": ""},
    "groups": {"aggregation": "nesterov", "groups": 3, "swap_every": 1, "validation": 0.2},
    "genetic": {"aggregation": "genetic", "validation": 0.2, "population": 4, "generations": 1},
    "post-local": {
        "post_local": 0.5,
        "align": True,
        "model": "resnet20",
        "model_args": "depth=8",
        "groups": 2,
    },
}


@pytest.mark.parametrize("case", quick(STOPPED, "groups"))
def test_a_stopped_run_goes_on_to_the_same_bits(
    configure: Configure, tmp_path: Path, case: str
) -> None:
    from sixfold.training import log

    settings = LOCAL | {"steps": 12, "checkpoint_every": 1} | STOPPED[case]
    whole = train(configure(out=str(tmp_path / "whole"), **settings))
    out = tmp_path / "run"

    def interrupt(event: Any) -> None:
        if event["kind"] == "progress" and event["step"] >= 6:  # in the middle of a round
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "REPORT_S", -1.0)
        with pytest.raises(KeyboardInterrupt):
            train(configure(out=str(out), **settings), on_event=interrupt)
    assert not (out / "result.json").exists()
    kept = [int(path.stem.removeprefix("step-")) for path in (out / "checkpoints").iterdir()]
    assert max(kept) < 12
    found = train(configure(out=str(out), resume=True, **settings))
    for name in ("weights_sha256", "test_loss", "serial_test_loss", "workers_test_accuracy"):
        assert found.get(name) == whole.get(name), name
    assert merges_of(out) == merges_of(tmp_path / "whole")


def test_another_number_of_workers_is_told_and_groups_refuse_it(
    configure: Configure, tmp_path: Path
) -> None:
    for groups, name in ((1, "one"), (2, "two")):
        settings = LOCAL | {"groups": groups, "checkpoint_every": 1, "steps": 8}
        out = str(tmp_path / name)
        train(configure(out=out, **settings))
        (tmp_path / name / "result.json").unlink()
        heard: list[Any] = []
        longer = settings | {"out": out, "workers": 2, "resume": True}
        if groups == 1:
            train(configure(**longer), on_event=heard.append)
            assert any("goes on with 2" in event.get("text", "") for event in heard)
        else:
            with pytest.raises(Exception, match="go on with --workers 3"):
                train(configure(**longer))


@pytest.mark.parametrize("merge", quick(["best", "genetic"], "best"))
def test_selection_never_sees_the_test_set(
    configure: Configure, tmp_path: Path, merge: str
) -> None:
    settings = LOCAL | {"aggregation": merge, "validation": 0.3, "steps": 8}
    honest = train(configure(out=str(tmp_path / "a"), **settings))
    original = datasets.open_data

    def shuffled(config: Any) -> Any:
        opened = original(config)
        opened.test.labels = opened.test.labels[::-1].copy()
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "open_data", shuffled)
        other = train(configure(out=str(tmp_path / "b"), **settings))
    assert other["test_loss"] != honest["test_loss"]
    assert other["weights_sha256"] == honest["weights_sha256"]


def test_the_report_of_a_merge_says_what_was_asked_for(
    configure: Configure, tmp_path: Path
) -> None:
    settings = LOCAL | {"compare_serial": True, "align": True, "aggregation": "map_delta"}
    result = train(configure(out=str(tmp_path / "run"), **settings))
    assert result["merges"] == 5
    assert len(result["workers_test_accuracy"]) == 3
    assert 0 <= result["serial_test_accuracy"] <= 1
    merges = merges_of(tmp_path / "run")
    assert [merge["step"] for merge in merges] == [4, 8, 12, 16, 18]
    for merge in merges:
        for name, layer in merge["layers"].items():
            assert len(layer["absolute"]) == len(layer["percent"]) == 3
            assert 0.5 <= layer["agreement"] <= 1
            serial = merge["serial"]["layers"][name]
            assert len(serial["absolute"]) == 3
            assert serial["absolute_all"] > 0
        assert merge["moved"] == {"features.0": [0, 0, 0]}
        assert sum(merge["taken"]["features.0"]) == merge["maps"]["features.0"] == 32


def test_the_serial_run_sees_the_workers_images_in_order(
    configure: Configure, tmp_path: Path
) -> None:
    """With merges so rare that there is one, block 0 is worker 0's own training."""
    settings = LOCAL | {"steps": 6, "local_steps": 6, "compare_serial": True}
    train(configure(out=str(tmp_path / "run"), **settings))
    (merge,) = merges_of(tmp_path / "run")
    for name, layer in merge["layers"].items():
        serial = merge["serial"]["layers"][name]
        assert serial["absolute"][0] == layer["absolute"][0]
        assert serial["absolute"][1] != layer["absolute"][1]


def test_swapped_members_carry_weights_between_groups(configure: Configure, tmp_path: Path) -> None:
    settings = LOCAL | {"workers": 4, "groups": 2, "steps": 8}
    apart = train(configure(out=str(tmp_path / "apart"), **settings))
    mixed = train(configure(out=str(tmp_path / "mixed"), swap_every=1, **settings))
    assert apart["weights_sha256"] != mixed["weights_sha256"]
    first, second = merges_of(tmp_path / "mixed")
    assert first["groups"] == [[2, 1], [0, 3]]
    assert second["groups"] == [[2, 3], [0, 1]]
    assert first["swapped"] is True


def test_groups_that_swap_in_the_first_round_are_groups_from_the_start(
    configure: Configure, tmp_path: Path
) -> None:
    """All begin equal, so the first merge of {2, 1}, {0, 3} is a mean over just these."""
    settings = LOCAL | {"workers": 4, "groups": 2, "steps": 4, "precision": "float64"}
    train(configure(out=str(tmp_path / "run"), swap_every=1, batch_size=8, **{
        name: value for name, value in settings.items() if name != "batch_size"
    }))  # fmt: skip
    whole = settings | {"groups": 1, "batch_size": 8}
    train(configure(out=str(tmp_path / "one"), **whole))
    found = load_file(tmp_path / "run" / "model.safetensors")
    expected = load_file(tmp_path / "one" / "model.safetensors")
    for name, tensor in expected.items():  # equal groups: the mean of means is the mean
        assert torch.allclose(found[name], tensor, rtol=1e-9, atol=1e-11), name
