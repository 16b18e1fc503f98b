"""Pictures of mistakes: right pixels, any number of channels, sizes that suit."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sixfold.core.html.pictures import MAX_SIDE, mistakes, picture


def decode(uri: str) -> NDArray[np.uint8]:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_survive(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 9, 12)).astype(np.uint8)
    pixels = decode(picture(image, "").uri)
    expected = image[:3].transpose(1, 2, 0) if channels >= 3 else image[0]
    assert (pixels == expected).all()


def test_floating_point_is_from_black_to_white() -> None:
    pixels = decode(picture(np.array([[[0.0, 0.5, 1.0, 2.0, -1.0, np.nan]]]), "").uri)
    assert pixels.tolist() == [[0, 128, 255, 255, 0, 0]]


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    made = picture(np.zeros((3, 32, 24), np.uint8), "")
    assert (made.width, made.height, made.small) == (72, 96, True)


def test_large_images_are_made_smaller() -> None:
    made = picture(np.zeros((1, 600, 300), np.uint8), "")
    assert decode(made.uri).shape == (MAX_SIDE, MAX_SIDE // 2)
    assert (made.width, made.height, made.small) == (52, 104, False)


@pytest.mark.parametrize("shape", [(28, 28), (0, 28, 28), (1, 0, 3)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="an image has shape"):
        picture(np.zeros(shape, np.uint8), "")


def test_each_mistake_gets_its_own_picture() -> None:
    asked: list[int] = []

    def images(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.extend(indices.tolist())
        return np.stack([np.full((1, 4, 4), index, np.uint8) for index in indices])

    worst: list[Any] = [
        {"name": "a", "index": 7, "label": "cat", "predicted": "dog", "confidence": 0.98},
        {"name": "no index", "index": "x", "label": 0, "predicted": 1, "confidence": None},
        "rubbish",
        {"name": "b", "index": 3, "label": 9, "predicted": "dog", "confidence": 0.9},
    ]
    found = mistakes({"worst": worst}, ["cat", "dog"], images, [])
    assert asked == [7, 3]
    assert found is not None
    lines = [[text for text, _ in lines] for _, lines in found.entries]
    assert lines == [
        ["cat → dog", "98.0%", "a"],
        ["cat → dog", "no index"],
        ["9 → dog", "90.0%", "b"],
    ]
    (first,), none, (last,) = (images for images, _ in found.entries)
    assert (decode(first.uri) == 7).all()
    assert none == []
    assert (decode(last.uri) == 3).all()


def test_too_few_pictures_are_told_and_none_is_misplaced() -> None:
    notes: list[str] = []
    worst = [{"index": 1, "label": "a", "predicted": "b"}, {"index": 2}]
    found = mistakes({"worst": worst}, [], lambda _: np.zeros((1, 1, 4, 4), np.uint8), notes)
    assert found is not None
    assert [images for images, _ in found.entries] == [[], []]
    assert "could not be read" in notes[0]
