"""Sizes of convolutions, right and impossible."""

from __future__ import annotations

import numpy as np
import pytest

from sixfold.studies.convolution import Geometry


def test_sizes_of_the_slide_network() -> None:
    geometry = Geometry.of((100, 3, 32, 32), (32, 3, 5, 5), padding=2)
    assert geometry.output_shape == (100, 32, 32, 32)
    assert geometry.image_shape == (100, 3, 32, 32)
    assert geometry.weight_shape == (32, 3, 5, 5)
    assert geometry.padded == (36, 36)


@pytest.mark.parametrize(
    ("image", "weight", "arguments", "words"),
    [
        ((1, 3, 8, 8), (4, 1, 3, 3), {}, "1 channels in each of 1 groups do not fit"),
        ((1, 4, 8, 8), (3, 2, 3, 3), {"groups": 2}, "2 groups must divide 4 channels and 3 maps"),
        ((1, 1, 4, 4), (1, 1, 3, 3), {"dilation": 2}, "reaches over 5x5 pixels does not fit"),
        ((1, 1, 4, 4), (1, 1, 5, 1), {}, "does not fit an image of 4x4 padded to 4x4"),
        ((1, 1, 4, 4), (1, 1, 3, 3), {"stride": 0}, "sizes must be positive"),
        ((1, 1, 4, 4), (1, 1, 3, 3), {"padding": -1}, "sizes must be positive"),
        ((0, 1, 4, 4), (1, 1, 3, 3), {}, "sizes must be positive"),
    ],
)
def test_impossible_sizes_are_explained(
    image: tuple[int, ...], weight: tuple[int, ...], arguments: dict[str, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Geometry.of(image, weight, **arguments)


def test_cropping_undoes_padding() -> None:
    geometry = Geometry.of((2, 3, 4, 5), (1, 3, 2, 2), padding=(2, 0))
    images = np.random.default_rng(0).random(geometry.image_shape)
    assert geometry.pad(images).shape == (2, 3, 8, 5)
    assert np.array_equal(geometry.crop(geometry.pad(images)), images)


def test_arrays_of_other_shapes_are_refused() -> None:
    geometry = Geometry.of((2, 3, 4, 5), (1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"weights are \(1, 3, 2\), expected \(1, 3, 2, 2\)"):
        geometry.expect(weights=np.zeros((1, 3, 2)))
