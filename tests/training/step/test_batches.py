"""Which images a shard has, and what is drawn for them."""

import numpy as np
import torch

from sixfold.data import open_data, resolve
from sixfold.data.config import DataConfig
from sixfold.distributed.process_group import alone
from sixfold.training.config import TrainConfig, TrainingConfig
from sixfold.training.step.batches import plan_batches
from sixfold.training.step.step import Shard

IMAGES, EPOCHS = 90, 3


def shards(augment: str, batch_size: int) -> list[Shard]:
    config = TrainConfig(
        data=DataConfig(data=f"synthetic:{IMAGES}x1x4x4", augment=augment),
        training=TrainingConfig(batch_size=batch_size, epochs=EPOCHS),
    )
    data = open_data(resolve(config.data))
    return list(plan_batches(config, data, batch_norm=False).own_shards(alone(), 0))


def test_epochs_take_turns_in_mirroring_an_image_however_shards_are_cut() -> None:
    found = []
    for batch_size in (30, 18):
        mirrored: dict[bytes, list[bool]] = {}
        plain, turned = shards("none", batch_size), shards("flip-alternate", batch_size)
        for one, other in zip(plain, turned, strict=True):
            for image, shown in zip(one.images, other.images, strict=True):
                was_mirrored = not torch.equal(image, shown)
                assert torch.equal(shown, image.flip(2) if was_mirrored else image)
                mirrored.setdefault(image.numpy().tobytes(), []).append(was_mirrored)
        found.append(mirrored)
    assert found[0] == found[1]
    turns = np.array(list(found[0].values()))
    assert turns.shape == (IMAGES, EPOCHS)
    assert (turns[:, 0] != turns[:, 1]).all()
    assert (turns[:, 0] == turns[:, 2]).all()
    assert 25 < turns[:, 0].sum() < 65
