"""Distortions against their slow reference, and what they promise."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from tests.prediction import distortions_reference

from sixfold.prediction.robustness.distortions import KINDS, Distortion, normals, rotate
from sixfold.prediction.robustness.warps import grow, look, shrink

SHAPES = [(1, 7, 7), (3, 9, 6), (2, 1, 5), (1, 4, 1), (4, 12, 12)]
STRENGTHS = {
    "downsample": [1.3, 2, 3.5, 100],
    "blur": [0.1, 0.7, 3],
    "rotate": [0.5, 33, 180, 400],
    "barrel": [0.01, 0.5, 3],
}
REFERENCES: dict[str, Callable[..., NDArray[np.float64]]] = {
    "downsample": distortions_reference.downsample,
    "blur": distortions_reference.blur,
    "barrel": distortions_reference.barrel,
}


def images(shape: tuple[int, int, int], count: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, *shape), np.uint8)


def raw(
    kind: str, batch: NDArray[np.uint8], strength: float, keys: list[int]
) -> NDArray[np.float32]:
    """Distorted, neither rounded nor cut off."""
    return KINDS[kind].apply(batch.astype(np.float32), strength, keys)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", list(REFERENCES))
def test_each_distortion_is_its_reference(kind: str, shape: tuple[int, int, int]) -> None:
    batch = images(shape)
    for strength in STRENGTHS[kind]:
        found = raw(kind, batch, strength, [1, 2])
        for image, out in zip(batch, found, strict=True):
            for channel, seen in zip(image.astype(np.float64), out, strict=True):
                wanted = REFERENCES[kind](channel, strength)
                np.testing.assert_allclose(seen, wanted, atol=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_is_its_reference_to_either_side(shape: tuple[int, int, int]) -> None:
    batch = images(shape)
    for degrees in STRENGTHS["rotate"]:
        found = rotate(batch.astype(np.float32), degrees, [3, 4])
        for image, out, side in zip(batch, found, (1, -1), strict=True):
            for channel, seen in zip(image.astype(np.float64), out, strict=True):
                # Coordinates are float32: next to an edge that is worth a few thousandths.
                wanted = distortions_reference.rotate(channel, side * degrees)
                np.testing.assert_allclose(seen, wanted, atol=5e-3)


@pytest.mark.parametrize("shape", [(2, 6, 6), (1, 5, 8), (1, 1, 4)])
def test_the_elastic_distortion_is_its_reference(shape: tuple[int, int, int]) -> None:
    batch, keys = images(shape), [11, 12]
    found = raw("elastic", batch, 1.5, keys)
    draws = normals(keys, (2, *shape[1:])).astype(np.float64)
    for image, out, own in zip(batch, found, draws, strict=True):
        for channel, seen in zip(image.astype(np.float64), out, strict=True):
            np.testing.assert_allclose(
                seen, distortions_reference.elastic(channel, own, 1.5), atol=5e-3
            )


@pytest.mark.parametrize("shape", SHAPES)
def test_places_between_pixels_are_seen_as_scipy_sees_them(shape: tuple[int, int, int]) -> None:
    batch = images(shape).astype(np.float32)
    places = np.random.default_rng(1).uniform(-3, 14, (2, 2, *shape[1:])).astype(np.float32)
    found = look(batch, (places[0], places[1]))
    for image, out, rows, columns in zip(batch, found, *places, strict=True):
        for channel, seen in zip(image, out, strict=True):
            wanted = ndimage.map_coordinates(channel, [rows, columns], order=1, mode="nearest")
            np.testing.assert_allclose(seen, wanted, atol=2e-3)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    batch = images((3, 8, 8), 1)
    found = rotate(batch.astype(np.float32), 90.0, [1])
    np.testing.assert_allclose(found[0], np.rot90(batch[0], axes=(1, 2)), atol=1e-2)


def test_the_displacement_has_the_strength_that_was_asked_for() -> None:
    from sixfold.prediction.robustness.warps import elastic

    draws = normals(list(range(3000)), (2, 6, 9))
    rows, columns = elastic(draws, 0.8)
    y, x = np.mgrid[0:6, 0:9]
    for moved in (rows - y, columns - x):
        np.testing.assert_allclose(moved.std(0), 0.8, rtol=0.06)
        assert abs(moved.mean()) < 0.02


def test_noise_has_the_strength_that_was_asked_for() -> None:
    gray = np.full((1, 3, 80, 80), 128, np.uint8)
    found = Distortion(kind="noise", strength=0.05)(gray, np.array([5]))
    assert (found.astype(float) - 128).std() / 255 == pytest.approx(0.05, rel=0.02)
    assert found.astype(float).mean() == pytest.approx(128, abs=0.3)


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_image_is_distorted_alike_in_any_batch(kind: str) -> None:
    batch = images((3, 10, 8), 5)
    distortion = Distortion(kind=kind, strength=2.0, seed=3)
    indices = np.array([40, 7, 40, 0, 2**40])
    whole = distortion(batch, indices)
    assert whole.dtype == np.uint8
    assert whole.shape == batch.shape
    for k in range(5):
        alone = distortion(batch[k : k + 1], indices[k : k + 1])
        assert (alone[0] == whole[k]).all()
    assert len(distortion(batch[:0], indices[:0])) == 0


@pytest.mark.parametrize("kind", ["noise", "elastic"])
def test_draws_depend_on_seed_and_image_alone(kind: str) -> None:
    same = np.repeat(images((1, 12, 12), 1), 2, axis=0)
    first = Distortion(kind=kind, strength=1.0)(same, np.array([0, 1]))
    assert (first[0] != first[1]).any()
    other = Distortion(kind=kind, strength=1.0, seed=1)(same, np.array([0, 1]))
    assert (first != other).any()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_flat_image_stays_flat_unless_noise_is_added(kind: str) -> None:
    flat = np.full((2, 3, 9, 11), 77, np.uint8)
    found = Distortion(kind=kind, strength=1.5)(flat, np.array([0, 1]))
    assert ((found == 77).all()) == (kind != "noise")


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_weakest_distortion_changes_nothing(kind: str) -> None:
    batch = images((3, 9, 9))
    least = KINDS[kind].least + 1e-6
    found = Distortion(kind=kind, strength=least)(batch, np.array([0, 1]))
    assert np.abs(found.astype(int) - batch.astype(int)).max() <= (
        255 if kind == "downsample" else 1
    )
    if kind == "downsample":  # one cell fewer or none: never more cells than elements
        exact = Distortion(kind=kind, strength=1.0)(batch, np.array([0, 1]))
        assert (exact == batch).all()


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_taps_add_up_to_one(size: int) -> None:
    for taps in (shrink(size, 2.7), shrink(size, 1.0), grow(max(size // 3, 1), size)):
        np.testing.assert_allclose(taps.weights.sum(1), 1)
        assert (taps.weights >= 0).all()
        line = np.random.default_rng(0).random((1, int(taps.places.max()) + 1)).astype(np.float32)
        wanted = (taps.weights * line[0][taps.places]).sum(1)
        np.testing.assert_allclose(taps.along(line, -1)[0], wanted, rtol=1e-5, atol=1e-6)
