import numpy as np
from sklearn.datasets import load_digits

from sixfold.data import open_data
from sixfold.data.config import DataConfig
from sixfold.data.images import resize_array


def test_they_are_scikit_learns_in_two_parts() -> None:
    dataset = open_data(DataConfig())
    reference = load_digits()
    assert dataset.shape == (1, 8, 8)
    assert dataset.classes == tuple("0123456789")
    seen = []
    for part in (dataset.train, dataset.test):
        everything = np.arange(len(part))
        images = part.images(everything)
        for image, name, label in zip(images, part.names(everything), part.labels, strict=True):
            index = int(name.removeprefix("digits[").removesuffix("]"))
            seen.append(index)
            assert (np.round(image[0] / 255 * 16) == reference.images[index]).all()
            assert label == reference.target[index]
    assert sorted(seen) == list(range(1797))
    shares = np.bincount(dataset.test.labels) / np.bincount(reference.target)
    assert (np.abs(shares - 0.2) < 0.003).all()


def test_they_can_be_resized() -> None:
    plain, large = open_data(DataConfig()), open_data(DataConfig(resize=28))
    first = np.array([0])
    assert large.shape == (1, 28, 28)
    assert (large.train.images(first)[0] == resize_array(plain.train.images(first)[0], 28)).all()
