"""Shards in pieces against shards computed whole: gradients, dropout, and what is never cut."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sixfold import models
from sixfold.core.config import RunConfig
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.training.config import ComputeConfig, StrategyConfig, TrainConfig, TrainingConfig
from sixfold.training.run import train
from sixfold.training.step.micro_batches import (
    FEWEST,
    MicroBatch,
    choose,
    formula,
    image_bytes,
    note,
    why_whole,
)
from sixfold.training.step.step import Shard, Step


def shard_of(samples: int, shape: tuple[int, ...]) -> Shard:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(samples, *shape, generator=generator, dtype=torch.float64)
    return Shard(index=3, images=images, labels=torch.arange(samples) % 5)


def with_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.Dropout2d(0.4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 20),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Linear(20, 5),
    )


def payload(model: nn.Module, shard: Shard, images: int | None) -> Tensor:
    step = Step(model, seed=7)
    step.micro_batch = MicroBatch(images=images)
    out = step.new_payload()
    for number in (4, 5):  # twice: nothing may be left over from one shard to the next
        step.shard_payload(number, shard, out)
    return out


@pytest.mark.parametrize("images", [1, 3, 8, 11, 12, 50])
def test_pieces_add_up_to_the_whole_shard(images: int) -> None:
    torch.manual_seed(0)
    network, shard = with_dropout().double(), shard_of(11, (2, 8, 8))
    whole = payload(copy.deepcopy(network), shard, None)
    cut = payload(network, shard, images)
    assert (cut - whole).abs().max() <= 1e-12 * whole.abs().max()
    assert cut[-2:].tolist() == whole[-2:].tolist()  # correct and samples
    if images >= 11:
        assert torch.equal(cut, whole)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("slide", (3, 16, 16)), ("lenet5", (1, 28, 28)), ("conv2", (1, 8, 8))],
)
def test_networks_of_the_zoo(name: str, shape: tuple[int, int, int]) -> None:
    def fresh() -> nn.Module:
        return models.build(ModelConfig(model=name), shape=shape, classes=5, seed=0).double()

    shard = shard_of(10, shape)
    whole, cut = payload(fresh(), shard, None), payload(fresh(), shard, 4)
    assert (cut - whole).abs().max() <= 1e-12 * whole.abs().max()


def test_a_dropout_mask_is_a_row_of_the_whole_shards() -> None:
    shard, masks = shard_of(9, (2, 8, 8)), []
    for images in (None, 4):
        torch.manual_seed(0)
        step = Step(with_dropout().double(), seed=7)
        step.micro_batch = MicroBatch(images=images)
        found: list[Tensor] = []
        draw = step.draw.mask

        def watched(*arguments: object, draw: object = draw, found: list[Tensor] = found) -> Tensor:
            found.append(draw(*arguments))  # type: ignore[operator]
            return found[-1]

        step.draw.mask = watched  # type: ignore[method-assign, assignment]
        step.shard_payload(0, shard, step.new_payload())
        masks.append([torch.cat(found[0::2]), torch.cat(found[1::2])])
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


def test_the_formula_follows_from_shapes() -> None:
    slide = models.build(ModelConfig(model="slide"), shape=(3, 32, 32), classes=10, seed=0)
    step = Step(slide, seed=0)
    # Pixels, and twice: 32 maps of 32x32, the same pooled, 10 scores.
    numbers = 3 * 1024 + 2 * (32 * 1024 + 32 * 256 + 10)
    assert image_bytes(step.model, (3, 32, 32), torch.float32) == 4 * numbers
    assert formula(step.model, (3, 32, 32), torch.float32) == 16_000_000 // (4 * numbers)
    assert formula(step.model, (3, 32, 32), torch.bfloat16) == 16_000_000 // (2 * numbers)
    cells = models.build(ModelConfig(model="cells"), shape=(1, 256, 256), classes=3, seed=0)
    assert formula(cells, (1, 256, 256), torch.float32) == FEWEST
    large = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4096), nn.Linear(4096, 10))
    weights = 3072 * 4096 + 4096 + 40_970
    wanted = 4 * weights // (3072 + 2 * (4096 + 10))
    assert formula(large, (3, 32, 32), torch.float32) == wanted


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)], "'1' \\(BatchNorm2d\\) may compute"),
        ([nn.Conv2d(1, 2, 3), Own()], "'1' \\(Own\\) may compute"),
        ([nn.RReLU()], "RReLU"),
        ([nn.Flatten(0)], "Flatten"),
        ([nn.Softmax(0)], "Softmax"),
        ([nn.AlphaDropout()], "AlphaDropout"),
    ],
)
def test_what_may_look_at_other_samples_is_never_cut(layers: list[nn.Module], said: str) -> None:
    model = nn.Sequential(*layers)
    config = TrainConfig(compute=ComputeConfig(micro_batch="8"))
    chosen = choose(model, (1, 8, 8), config, torch.float32)
    assert chosen.images is None
    text = note(chosen, config)
    assert text is not None
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(text)
    assert note(chosen, TrainConfig()) is None


def test_a_watched_layer_is_never_cut() -> None:
    layer = nn.Conv2d(1, 2, 3)
    layer.register_forward_hook(lambda *_: None)
    assert why_whole(nn.Sequential(layer)) == "layer '0' (Conv2d) is watched by hooks"


@pytest.mark.parametrize("word", ["0", "-3", "some", "2.5", ""])
def test_wrong_sizes_are_refused(word: str) -> None:
    found = TrainConfig(compute=ComputeConfig(micro_batch=word)).problems()
    assert found == [f"--micro-batch {word}: expected auto, off, or a number of images"]


def test_divided_networks_are_refused() -> None:
    for strategy in (
        StrategyConfig(strategy="model_parallel"),
        StrategyConfig(strategy="auto", deterministic=False),
        StrategyConfig(strategy="auto", grid="auto"),
    ):
        config = TrainConfig(compute=ComputeConfig(micro_batch="8"), strategy=strategy)
        assert any("--micro-batch 8: not with" in problem for problem in config.problems())
    config = TrainConfig(
        compute=ComputeConfig(micro_batch="8"), strategy=StrategyConfig(strategy="auto")
    )
    assert not config.problems()


def settings(out: Path, workers: int, micro_batch: str, model: str = "slide") -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data="synthetic:64x1x12x12"),
        model=ModelConfig(model=model),
        training=TrainingConfig(batch_size=60, steps=2, shards=4),
        compute=ComputeConfig(micro_batch=micro_batch),
        engine=EngineConfig(engine="inline", workers=workers),
        run=RunConfig(out=str(out)),
    )


def test_the_same_bits_for_any_number_of_workers(tmp_path: Path) -> None:
    found = [train(settings(tmp_path / str(n), n, "4")) for n in (1, 2, 3)]
    assert len({result["weights_sha256"] for result in found}) == 1
    assert found[0]["micro_batch"] == 4
    whole = train(settings(tmp_path / "whole", 1, "off"))
    assert whole["micro_batch"] is None
    assert whole["weights_sha256"] != found[0]["weights_sha256"]  # it did cut
    assert (
        train(settings(tmp_path / "auto", 1, "auto"))["weights_sha256"] == whole["weights_sha256"]
    )


def test_a_network_with_batch_norm_says_once_that_it_is_not_cut(tmp_path: Path) -> None:
    config = settings(tmp_path / "run", 2, "4", model="resnet20")
    config = dataclasses.replace(
        config,
        data=DataConfig(data="synthetic:64x1x8x8"),
        model=ModelConfig(model="resnet20", model_args="depth=8"),
    )
    notes: list[str] = []
    result = train(
        config, on_event=lambda e: notes.append(e["text"]) if e["kind"] == "note" else None
    )
    assert result["micro_batch"] is None
    assert [text for text in notes if "computed whole, because layer 'stem.1'" in text] == notes
    assert len(notes) == 1
