"""Every augmentation, for many images at once, against a slow one for one image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.data.augmentation import references

from sixfold.data.augmentation import colors, erasing, levels
from sixfold.data.augmentation.draws import uniform
from sixfold.data.augmentation.grammar import parse_augment
from sixfold.data.augmentation.pipeline import Augment
from sixfold.data.augmentation.randaugment import OPERATIONS, randaugment
from sixfold.data.augmentation.resized_crop import RATIO, enlarge, fallback, resized_crop
from sixfold.data.augmentation.spec import Images
from sixfold.data.augmentation.warps import rotation, warp

MEAN = np.array([10, 20, 30], np.uint8)
SHAPES = [(3, 13, 17), (1, 8, 8), (3, 2, 2)]


def pictures(count: int, shape: tuple[int, ...], seed: int = 0) -> Images:
    """Smooth gradients, noise, a flat one and one of few levels, in turn."""
    random = np.random.default_rng(seed)
    out = random.integers(0, 256, (count, *shape), np.uint8)
    rows = np.linspace(20, 200, shape[1])[:, None] + np.arange(shape[2])
    out[1::4] = rows.astype(np.uint8)
    out[2::4] = 77
    out[3::4] //= 64
    return out


def almost(found: NDArray[np.uint8], wanted: NDArray[np.uint8], levels_apart: int = 0) -> bool:
    """Equal but for a rounding here and there."""
    apart = np.abs(found.astype(int) - wanted.astype(int))
    return bool((apart > levels_apart).mean() <= 0.002) and bool(apart.max(initial=0) <= 255)


Change = Callable[[Images, NDArray[np.float64]], Images]
Reference = Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]


@pytest.mark.parametrize(
    ("change", "reference", "low", "high"),
    [
        (colors.brightness, references.brightness, 0, 2),
        (colors.contrast, references.contrast, 0, 2),
        (colors.saturation, references.saturation, 0, 2),
        (colors.hue, references.hue, -0.5, 0.5),
        (levels.sharpness, references.sharpness, 0, 2),
        (levels.posterize, references.posterize, 1, 8.99),
        (levels.solarize, references.solarize, 0, 256),
        (levels.autocontrast, references.autocontrast, 0, 1),
        (levels.equalize, references.equalize, 0, 1),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_colours_and_levels(
    change: Change, reference: Reference, low: float, high: float, shape: tuple[int, ...]
) -> None:
    images = pictures(12, shape)
    values = np.random.default_rng(1).uniform(low, high, 12).astype(np.float32).astype(np.float64)
    values = np.floor(values) if change is levels.posterize else values
    found = change(images.copy(), values)
    for image, one, value in zip(images, found, values.tolist(), strict=True):
        if change is colors.hue and len(image) != 3:
            assert (one == image).all()
        else:  # colorsys computes in double precision
            assert almost(one, reference(image, value), int(change is colors.hue))


@pytest.mark.parametrize("shape", SHAPES)
def test_rotations(shape: tuple[int, ...]) -> None:
    images, degrees = pictures(8, shape), np.linspace(-180, 170.3, 8)
    found = warp(images, rotation(degrees))
    for image, one, angle in zip(images, found, degrees.tolist(), strict=True):
        if abs(angle) < 180:
            assert almost(one, references.affine(image, angle=-angle))
    assert (found[0] == images[0][:, ::-1, ::-1]).all()


def test_boxes_are_enlarged_as_by_bilinear_interpolation() -> None:
    images = pictures(6, (3, 12, 15))
    tops, lefts = np.array([0, 1, 4, 0, 11, 3]), np.array([0, 2, 5, 14, 0, 3])
    heights, widths = np.array([12, 7, 8, 12, 1, 5]), np.array([15, 9, 3, 1, 15, 4])
    found = enlarge(images, tops, lefts, heights, widths)
    assert (found[0] == images[0]).all()
    boxes = zip(tops.tolist(), lefts.tolist(), heights.tolist(), widths.tolist(), strict=True)
    for image, one, box in zip(images, found, boxes, strict=True):
        wanted = references.resized_crop(image, *box)
        assert np.abs(one.astype(int) - wanted.astype(int)).max() <= 1
        assert almost(one, wanted, 1)


def test_resized_crops_take_the_first_box_that_fits() -> None:
    count, settings = 40, (0.2, 1.0)
    images = pictures(count, (3, 12, 30))
    draws = uniform(5, count, 22)
    found = resized_crop(images, draws, settings, MEAN)
    fell_back = 0
    for image, one, drawn in zip(images, found, draws.tolist(), strict=True):
        box = None
        for try_ in range(10):
            area = 12 * 30 * (0.2 + drawn[2 * try_] * 0.8)
            low, high = np.log(RATIO)
            ratio = np.exp(low + drawn[2 * try_ + 1] * (high - low))
            width, height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < width <= 30 and 0 < height <= 12:
                top, left = int(drawn[20] * (13 - height)), int(drawn[21] * (31 - width))
                box = top, left, height, width
                break
        if box is None:
            fell_back += 1
            height, width = fallback(12, 30)
            assert (height, width) == (12, 16)
            box = 0, 7, 12, 16
        wanted = references.resized_crop(image, *box)
        assert np.abs(one.astype(int) - wanted.astype(int)).max() <= 1
    assert 0 < fell_back < count


@pytest.mark.parametrize("size", [(30, 10), (10, 30), (9, 9)])
def test_a_fallback_has_an_allowed_ratio(size: tuple[int, int]) -> None:
    height, width = fallback(*size)
    assert height <= size[0]
    assert width <= size[1]
    assert RATIO[0] - 0.1 <= width / height <= RATIO[1] + 0.1


@pytest.mark.parametrize("magnitude", [0, 9, 29])
@pytest.mark.parametrize("shape", [(3, 14, 18), (1, 16, 16)])
def test_randaugment_is_what_its_operations_are_one_by_one(
    magnitude: int, shape: tuple[int, ...]
) -> None:
    count, operations = 60, 2
    images = pictures(count, shape)
    draws = uniform(3, count, 2 * operations)
    found = randaugment(images.copy(), draws, (operations, magnitude), MEAN)
    names, seen = list(OPERATIONS), set()
    for image, one, drawn in zip(images, found, draws.tolist(), strict=True):
        for number in range(operations):
            name = names[int(drawn[2 * number] * len(names))]
            negative = drawn[2 * number + 1] < 0.5
            seen.add(name)
            image = references.randaugment_operation(image, name, magnitude, negative=negative)
        assert almost(one, image, 1)
    assert seen == set(names)


def test_colour_jitter_takes_each_change_once_in_an_order_of_its_own() -> None:
    count, strengths = 30, (0.4, 0.3, 0.2, 0.1)
    images = pictures(count, (3, 6, 7))
    draws = uniform(4, count, 8)
    found = colors.color_jitter(images.copy(), draws, strengths, MEAN)
    changes = (
        *(references.brightness, references.contrast, references.saturation),
        references.hue,
    )
    for image, one, drawn in zip(images, found, draws.tolist(), strict=True):
        for number in np.argsort(drawn[4:], kind="stable"):
            strength, part = strengths[number], 2 * drawn[number] - 1
            image = changes[number](image, strength * part + (number < 3))
        assert np.abs(one.astype(int) - image.astype(int)).max() <= 3


def test_no_colour_jitter_changes_nothing() -> None:
    images = pictures(9, (3, 5, 5))
    found = parse_augment("color-jitter:0:0:0:0").apply(images.copy(), 1)
    assert (found == images).all()


def test_erased_boxes_have_the_mean_colour() -> None:
    images = np.full((400, 3, 20, 24), 200, np.uint8)
    found = erasing.erase(images.copy(), uniform(1, 400, 23), (0.5,), MEAN)
    erased = (found == MEAN[:, None, None]).all(1)
    assert (erased | (found == 200).all(1)).all()
    assert 150 < erased.any((1, 2)).sum() < 250
    for mask in erased[erased.any((1, 2))]:
        rows, columns = mask.any(1), mask.any(0)
        assert (mask == rows[:, None] & columns).all()  # a box
        assert 0.01 <= mask.mean() <= 0.36
        ratio = columns.sum() / rows.sum()
        assert 0.25 <= ratio <= 4


def test_cutouts_are_squares_as_far_as_they_are_inside() -> None:
    images = np.full((200, 3, 16, 16), 200, np.uint8)
    draws = uniform(1, 200, 2)
    found = erasing.cutout(images.copy(), draws, (6.0,), MEAN)
    for one, drawn in zip(found, draws.tolist(), strict=True):
        y, x = int(drawn[0] * 16), int(drawn[1] * 16)
        wanted = np.full((3, 16, 16), 200, np.uint8)
        wanted[:, max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3] = MEAN[:, None, None]
        assert (one == wanted).all()


def test_half_of_the_images_are_turned_upside_down() -> None:
    images = pictures(400, (3, 6, 5))[::4][:100]
    found = parse_augment("flip-rows").apply(images.copy(), 9)
    turned = (found == images[:, :, ::-1]).all((1, 2, 3))
    assert (turned | (found == images).all((1, 2, 3))).all()
    assert 30 < turned.sum() < 70


EVERYTHING = "crop:2,flip,flip-rows,resized-crop,rotate,color-jitter,randaugment,erase,cutout:3"


def test_shards_do_not_depend_on_what_is_read_with_them() -> None:
    augment: Augment = parse_augment(EVERYTHING)
    images = pictures(40, (3, 24, 24))
    together = augment.apply_to_shards(images.copy(), [(7, 1), (20, 2), (13, 3)], MEAN)
    apart = [
        augment.apply(images[part].copy(), key, MEAN)
        for part, key in ((slice(0, 7), 1), (slice(7, 27), 2), (slice(27, 40), 3))
    ]
    assert (together == np.concatenate(apart)).all()
    assert not (augment.apply(images[:7].copy(), 4, MEAN) == apart[0]).all()
    assert together.flags.c_contiguous
