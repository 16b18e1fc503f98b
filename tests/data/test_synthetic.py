import numpy as np
import pytest

from sixfold.core.errors import UserError
from sixfold.data import open_data, resolve
from sixfold.data.config import DataConfig
from sixfold.data.synthetic import parse


def test_sizes_are_as_asked() -> None:
    dataset = open_data(DataConfig(data="synthetic:70x2x5x9"))
    assert (len(dataset.train), len(dataset.test)) == (70, 14)
    assert dataset.shape == (2, 5, 9)
    assert len(open_data(DataConfig(data="synthetic:7x1x2x2")).test) == 10


def test_any_image_can_be_made_alone() -> None:
    train, test = parse("500x3x7x5")
    indices = np.array([499, 0, 17])
    together = train.images(indices)
    for image, index in zip(together, indices, strict=True):
        assert (train.images(np.array([index]))[0] == image).all()
    assert (train.images(indices) != test.images(indices[1:2])).any()


def test_a_large_set_costs_nothing_until_it_is_read() -> None:
    train, _ = parse("50000000x3x224x224")
    assert train.images(np.array([49_999_999])).shape == (1, 3, 224, 224)


def test_classes_can_be_told_apart_but_not_by_one_pixel() -> None:
    train, test = parse("1000x1x12x12")
    images = train.images(np.arange(1000)).reshape(1000, -1).astype(np.float64)
    centres = np.stack([images[train.labels == k].mean(0) for k in range(10)])
    unseen = test.images(np.arange(200)).reshape(200, -1)
    distance = ((unseen[:, None] - centres) ** 2).sum(2)
    assert (distance.argmin(1) == test.labels).mean() > 0.95
    by_pixel = np.abs(unseen[:, None, 0] - centres[:, 0]).argmin(1)
    assert (by_pixel == test.labels).mean() < 0.5


def test_statistics_are_exact_for_small_sets_and_close_for_large_ones() -> None:
    small = open_data(DataConfig(data="synthetic:90x2x8x8"))
    pixels = small.train.images(np.arange(90)) / 255
    np.testing.assert_allclose(small.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(small.std, pixels.std((0, 2, 3)), rtol=1e-10)
    large = open_data(DataConfig(data="synthetic:200000x1x32x32"))
    sample = large.train.images(np.arange(0, 200_000, 499)) / 255
    np.testing.assert_allclose(large.mean, sample.mean((0, 2, 3)), atol=0.005)


def test_resize_gives_the_size() -> None:
    resolved = resolve(DataConfig(data="synthetic:20x3x8x8", resize=16))
    assert open_data(resolved).shape == (3, 16, 16)


@pytest.mark.parametrize(
    "sizes",
    ["", "10", "10x3x8", "0x3x8x8", "10x3x0x8", "10x3x8x8x1", "ax3x8x8", "-1x3x8x8", "10X3X8X8",
     "1000000000x3x8x8", "10x3x99999x99999", "9" * 30 + "x1x1x1"],
)  # fmt: skip
def test_wrong_sizes_are_explained(sizes: str) -> None:
    with pytest.raises(UserError, match="synthetic:NxCxHxW") as error:
        resolve(DataConfig(data=f"synthetic:{sizes}"))
    assert len(error.value.problems) == 1
