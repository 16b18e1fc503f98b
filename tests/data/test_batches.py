import numpy as np
import pytest
import torch

from sixfold.data import Augment, BatchMaker, DataSet, Part, open_data
from sixfold.data.config import DataConfig
from sixfold.data.dataset import ArrayStore, assemble


@pytest.fixture
def dataset() -> DataSet:
    return open_data(DataConfig(data="synthetic:60x3x8x6", validation=0.2))


def test_a_batch_is_normalised_by_the_training_part(dataset: DataSet) -> None:
    pixels = dataset.train.images(np.arange(len(dataset.train))) / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    indices = np.array([5, 0, 5])
    images, labels = BatchMaker(dataset, "float64")(dataset.test, indices)
    raw = dataset.test.images(indices) / 255
    expected = (raw - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(images.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert labels.tolist() == dataset.test.labels[indices].tolist()
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_bits_do_not_depend_on_how_a_batch_is_made(dataset: DataSet, precision: str) -> None:
    maker = BatchMaker(dataset, precision)
    indices = np.array([3, 1, 4, 1, 5])
    whole, _ = maker(dataset.train, indices)
    for place, index in enumerate(indices):
        alone, _ = maker(dataset.train, np.array([index]))
        assert torch.equal(alone[0], whole[place])
    assert whole.dtype == getattr(torch, precision)
    assert whole.is_contiguous()


def test_augmentation_follows_from_the_key(dataset: DataSet) -> None:
    maker, augment = BatchMaker(dataset), Augment(pad=2, flip=True)
    indices = np.arange(20)
    first, _ = maker(dataset.train, indices, augment=augment, key=7)
    assert torch.equal(first, maker(dataset.train, indices, augment=augment, key=7)[0])
    assert not torch.equal(first, maker(dataset.train, indices, augment=augment, key=8)[0])


def test_a_channel_that_never_varies_is_only_centred() -> None:
    pixels = np.full((4, 2, 3, 3), 200, np.uint8)
    pixels[:, 1, 0] = 0
    store = ArrayStore(pixels, np.array([0, 0, 1, 1]), list("abcd"))
    constant = assemble(name="x", classes=("a", "b"), train=store, test=store)
    images, _ = BatchMaker(constant)(constant.train, np.arange(4))
    assert torch.isfinite(images).all()
    assert images[:, 0].abs().max() < 1e-6


def test_an_index_outside_is_refused(dataset: DataSet) -> None:
    for index in (-1, len(dataset.train)):
        with pytest.raises(IndexError):
            dataset.train.images(np.array([index]))


def test_images_belong_to_the_caller(dataset: DataSet) -> None:
    part: Part = dataset.train
    images = part.images(np.array([0]))
    images[:] = 0
    assert part.images(np.array([0])).any()
