import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sixfold.data import permutation


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 300))
def test_every_image_comes_once(seed: int, epoch: int, n: int) -> None:
    assert sorted(permutation(seed, epoch, n).tolist()) == list(range(n))


@given(st.integers(0, 50), st.integers(0, 50))
def test_it_depends_on_seed_and_epoch_alone(seed: int, epoch: int) -> None:
    order = permutation(seed, epoch, 200)
    assert (order == permutation(seed, epoch, 200)).all()
    assert (order != permutation(seed + 1, epoch, 200)).any()
    assert (order != permutation(seed, epoch + 1, 200)).any()


def test_it_is_the_same_in_every_version() -> None:
    # Checkpoints of older versions resume in the middle of such an order.
    assert permutation(0, 0, 8).tolist() == [3, 5, 7, 0, 1, 2, 6, 4]


def test_images_move_evenly() -> None:
    first = np.array([permutation(0, epoch, 10)[0] for epoch in range(2000)])
    counts = np.bincount(first, minlength=10)
    assert counts.min() > 140
    assert counts.max() < 270
