"""A data set with random transforms is read anew in each epoch, by keys."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sixfold
from sixfold.core.errors import UserError
from sixfold.data import open_data
from sixfold.data.config import DataConfig
from sixfold.data.items import generators
from sixfold.data.reread import item_key

CELL = """
import random
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()

class Digits(torch.utils.data.Dataset):
    classes = [str(number) for number in range(10)]

    def __len__(self):
        return 300

    def __getitem__(self, index):
        pixels = (digits.images[index] * 15).astype(np.uint8)
        if random.random() < 0.5:
            pixels = np.roll(pixels, int(np.random.randint(-1, 2)), 1)
        pixels = np.roll(pixels, int(torch.randint(-1, 2, ())), 0)
        return Image.fromarray(pixels), int(digits.target[index])
"""


def run_cell(code: str = CELL) -> SimpleNamespace:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<ipython-input-1>", "exec"), space)
    return SimpleNamespace(**space)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(384, 10)
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.full
def test_the_bits_do_not_depend_on_who_reads() -> None:
    data = run_cell().Digits()
    found = {}
    for engine, workers in (("inline", 1), ("local", 2), ("local", 3)):
        result = sixfold.train(
            network(), data, epochs=2, lr=0.05, engine=engine, workers=workers, out=f"{workers}"
        )
        found[workers] = result.weights_sha256
    assert len(set(found.values())) == 1
    random.seed(5)
    torch.manual_seed(5)
    again = sixfold.train(
        network(), run_cell().Digits(), epochs=2, lr=0.05, engine="inline", workers=1, out="again"
    )
    assert again.weights_sha256 == found[1]
    plain = run_cell(CELL.replace("-1, 2", "0, 1")).Digits()
    fixed = sixfold.train(
        network(), plain, epochs=2, lr=0.05, engine="inline", workers=1, out="plain"
    )
    assert fixed.weights_sha256 != found[1]


def test_items_follow_from_seed_epoch_and_index() -> None:
    data = run_cell().Digits()
    told: list[str] = []
    result = sixfold.train(
        network(), data, test=False, steps=1, lr=0.05, engine="inline", workers=1,
        on_event=lambda event: told.append(str(event.get("text"))),
    )  # fmt: skip
    assert any("read anew in each epoch" in text for text in told)
    import json

    settings = json.loads((result.path / "config.json").read_text())["data"]
    opened = open_data(DataConfig(data=settings["data"], reread=settings["reread"]))
    assert opened.ahead == 0
    assert opened.reread is not None
    places = np.array([7, 3, 250])
    seen = set()
    for seed, epoch in ((0, 0), (0, 1), (4, 1)):
        images = opened.reread.images(opened.train, places, seed, epoch)
        for image, index in zip(images, places.tolist(), strict=True):
            with generators(item_key(seed, epoch, index)):
                expected = np.asarray(data[index][0])
            assert np.array_equal(image[0], expected)
        seen.add(images.tobytes())
    assert len(seen) == 3


def test_what_is_judged_must_not_vary() -> None:
    data = run_cell().Digits()
    with pytest.raises(UserError, match="test: Digits gives other images when it is read again"):
        sixfold.train(network(), data, test=data, engine="inline")


def test_an_item_that_changes_its_size_is_told() -> None:
    class Sizes:
        def __init__(self) -> None:
            self.read = 0

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            noise = np.random.randint(0, 255, (8, 8), np.uint8)
            side = 8 if self.read < 110 else 9
            self.read += 1
            return Image.fromarray(noise).resize((side, side)), index % 2

    with pytest.raises(UserError, match=r"item \d+ of epoch \d is an image of 1x9x9"):
        sixfold.train(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 2)),
            Sizes(), epochs=3, batch_size=20, engine="inline", workers=1,
        )  # fmt: skip
