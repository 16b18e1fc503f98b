import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sixfold.data.augmentation.grammar import parse_augment
from sixfold.data.augmentation.moves import shift
from sixfold.data.augmentation.pipeline import Augment


def noise(n: int, channels: int, rows: int, columns: int) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(1, 256, (n, channels, rows, columns), np.uint8)


def window(image: NDArray[np.uint8], y: int, x: int) -> NDArray[np.uint8]:
    """A crop the obvious way: pad by enough, then cut."""
    pad = max(abs(y), abs(x))
    rows, columns = image.shape[1:]
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    return padded[:, pad + y : pad + y + rows, pad + x : pad + x + columns]


@given(
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(1, 7),
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=5),
)
def test_a_shifted_window_is_a_crop_of_the_padded_image(
    channels: int, rows: int, columns: int, moves: list[tuple[int, int]]
) -> None:
    images = noise(len(moves), channels, rows, columns)
    down, right = (np.array(column) for column in zip(*moves, strict=True))
    out = shift(images, down, right)
    for image, found, y, x in zip(images, out, down.tolist(), right.tolist(), strict=True):
        assert (found == window(image, y, x)).all()


@given(st.integers(0, 2**63 - 1), st.integers(0, 5), st.booleans())
def test_a_key_fixes_every_bit(key: int, pad: int, flip: bool) -> None:
    augment = Augment(pad=pad, flip=flip)
    images = noise(9, 3, 8, 8)
    out = augment.apply(images.copy(), key)
    assert (out == augment.apply(images.copy(), key)).all()
    assert out.flags.c_contiguous
    assert out.dtype == np.uint8


def test_crops_reach_every_offset_and_flips_half_of_the_images() -> None:
    images = np.arange(1, 26, dtype=np.uint8).reshape(1, 1, 5, 5).repeat(4000, 0)
    crops = Augment(pad=1).apply(images.copy(), 3)
    kinds = {image.tobytes() for image in crops}
    assert kinds == {window(images[0], y, x).tobytes() for y in (-1, 0, 1) for x in (-1, 0, 1)}
    flipped = (Augment(flip=True).apply(images.copy(), 3) != images).any((1, 2, 3))
    assert 1850 < flipped.sum() < 2150


def test_flips_are_the_same_with_and_without_crops() -> None:
    images = np.zeros((64, 1, 3, 3), np.uint8)
    images[:, :, 1] = [1, 2, 3]
    alone = Augment(flip=True).apply(images.copy(), 5)[:, 0, 1, 0] == 3
    both = Augment(pad=1, flip=True).apply(images.copy(), 5)
    mirrored = np.array([image[0].tolist() for image in both])
    descends = np.diff(mirrored.max(1), axis=1) < 0
    assert (descends[mirrored.max(1).min(1) > 0].any(1) == alone[mirrored.max(1).min(1) > 0]).all()


def test_no_augmentation_leaves_images_alone() -> None:
    images = noise(3, 1, 4, 4)
    assert parse_augment("none").apply(images, 0) is images
