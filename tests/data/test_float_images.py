"""Images of floating-point numbers are kept as they are."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import sixfold
from sixfold.core.errors import UserError
from sixfold.data import BatchMaker, open_data, parse_augment, resolve
from sixfold.data.augmentation.grammar import range_problems
from sixfold.data.config import DataConfig
from sixfold.data.dataset import DataSet
from sixfold.data.given import write_given
from sixfold.data.given_sources import parts_of
from sixfold.data.pixel_sums import image_sums, sums_of, weighted_sums

COUNT = 24
IMAGES = np.random.default_rng(0).normal(3, 2, (COUNT, 2, 6, 5)).astype(np.float32)
LABELS = np.arange(COUNT) % 2


def write(tmp_path: Path, data: Any, **options: Any) -> DataSet:
    config = DataConfig(**options)
    spec = write_given(parts_of(data, "data", config, tmp_path), cut_test=False)
    return open_data(DataConfig(data=spec))


def kept(dataset: DataSet) -> Any:
    return dataset.train.images(np.arange(len(dataset.train)))


class Items:
    """A map-style data set of some images."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], int(LABELS[index])


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        torch.from_numpy(IMAGES),
        Items(torch.from_numpy(IMAGES)),
        (IMAGES * 1000).astype(np.int32),
        np.where(np.arange(COUNT)[:, None, None, None] == COUNT - 1, IMAGES, 1.0),
        Items([*np.zeros((COUNT - 1, 2, 6, 5), np.float32), IMAGES[0]]),
    ],
    ids=["array", "tensor", "items", "16 bits", "only the last image", "only the last item"],
)
def test_numbers_that_are_no_8_bit_pixels_are_kept(images: Any, tmp_path: Path) -> None:
    items = images.images if isinstance(images, Items) else images
    expected = np.stack([np.asarray(image) for image in items]).astype(np.float32)
    dataset = write(tmp_path, images if isinstance(images, Items) else (images, LABELS))
    assert dataset.dtype == np.float32
    assert np.array_equal(kept(dataset), expected)
    wide = expected.astype(np.float64)
    assert np.allclose(dataset.mean, wide.mean((0, 2, 3)), rtol=1e-13)
    assert np.allclose(dataset.std, wide.std((0, 2, 3)), rtol=1e-9)
    normal, _ = BatchMaker(dataset)(dataset.train, np.arange(COUNT))
    assert np.allclose(normal.mean((0, 2, 3)), 0, atol=1e-5)
    assert np.allclose(normal.std((0, 2, 3), correction=0), 1, atol=1e-4)


def test_8_bit_pixels_are_kept_as_numbers_where_that_is_asked_for(tmp_path: Path) -> None:
    images = (IMAGES > 3).astype(np.float32)
    assert write(tmp_path, (images, LABELS)).dtype == np.uint8
    dataset = write(tmp_path, (images, LABELS), pixel_range="any")
    assert dataset.dtype == np.float32
    assert np.array_equal(kept(dataset), images)


def test_pictures_and_numbers_do_not_mix(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(np.zeros((6, 5), np.uint8))
    with pytest.raises(UserError, match="8-bit pictures and others floating-point"):
        write(tmp_path, Items([picture, *IMAGES[1:, :1]]))


@given(
    hnp.arrays(
        np.float32,
        (7, 2, 3, 2),
        elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
    ),
    st.lists(st.integers(0, 3), min_size=7, max_size=7),
)
def test_sums_are_exact_however_images_are_divided(images: Any, times: list[int]) -> None:
    counts = np.array(times)
    whole = weighted_sums(counts, *image_sums(images), 6)
    first = weighted_sums(counts[:3], *image_sums(images[:3]), 6)
    assert whole == first + weighted_sums(counts[3:], *image_sums(images[3:]), 6)
    own = image_sums(images)[0]
    expected = sum(n * Fraction(float(x)) for n, x in zip(times, own[:, 1], strict=True))
    assert whole.total[1] == expected


@pytest.mark.parametrize("value", [0.1, 300.7, -1e-3, 1e20])
def test_a_channel_that_never_varies_has_no_deviation(value: float) -> None:
    assert sums_of(np.full((9, 1, 13, 11), value, np.float32)).std().tolist() == [0.0]


def test_changes_of_colour_need_8_bit_pixels() -> None:
    augment = parse_augment("crop:1,flip,color-jitter,randaugment,erase,mixup")
    assert range_problems(augment, np.dtype(np.uint8)) == []
    lines = range_problems(augment, np.dtype(np.float32))
    assert [line.partition(":")[0] for line in lines] == [
        "--augment color-jitter",
        "--augment randaugment",
    ]


@pytest.mark.parametrize("pixel_range", [None, "any"])
@pytest.mark.parametrize("scale", [1.0, 0.1, 1000.0])
def test_a_table_of_numbers_that_are_no_pixels_keeps_them(
    pixel_range: str | None, scale: float, tmp_path: Path
) -> None:
    images = (IMAGES - 3) * np.float32(scale)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images.tolist(), "label": LABELS}), path)
    asked = DataConfig(data=f"parquet:{path}", pixel_range=pixel_range, test_split=0.0)
    part = open_data(resolve(asked, cache=tmp_path)).train
    names = part.names(np.arange(COUNT))
    rows = [int(name.removeprefix("a.parquet[").rstrip("]")) for name in names]
    assert np.array_equal(part.images(np.arange(COUNT)), images[rows])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))


def test_training_has_one_hash_and_the_network_takes_images_as_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    results = [
        sixfold.train(
            network(), (IMAGES, LABELS), test=False, batch_size=8, epochs=2, workers=workers,
            augment="crop:1,flip,erase,resized-crop,rotate,mixup", engine="inline", quiet=True,
            out=tmp_path / str(workers),
        )
        for workers in (1, 2, 3)
    ]  # fmt: skip
    assert len({result.weights_sha256 for result in results}) == 1
    model = results[0].model()
    scores = model(torch.from_numpy(IMAGES)).softmax(1)
    dark = np.zeros_like(IMAGES)  # tells nothing of its range by itself
    found = results[0].predict(IMAGES).probabilities
    assert np.allclose(found, scores.detach(), atol=1e-6)
    assert np.allclose(
        results[0].predict(dark).probabilities,
        model(torch.from_numpy(dark)).softmax(1).detach(),
        atol=1e-6,
    )
    with pytest.raises(UserError, match="expected floating-point numbers"):
        model(torch.zeros(1, 2, 6, 5, dtype=torch.uint8))


def test_a_network_of_8_bit_pixels_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    pixels = np.arange(IMAGES.size, dtype=np.int64).reshape(IMAGES.shape) % 256
    result = sixfold.train(
        network(), (pixels, LABELS), test=False, batch_size=8, steps=1, engine="inline",
        quiet=True, out=tmp_path / "run",
    )  # fmt: skip
    for images in (IMAGES, pixels / 1000):
        with pytest.raises(UserError, match="give images like those of the training"):
            result.predict(images)
