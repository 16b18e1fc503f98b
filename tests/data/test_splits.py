import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sixfold.data.splits import cut, permutation, some

label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=120)
fractions = st.floats(0.01, 0.5)


def counts(labels: NDArray[np.int64], chosen: NDArray[np.bool_], label: int) -> tuple[int, int]:
    of_class = labels == label
    return int(of_class.sum()), int((of_class & chosen).sum())


@given(label_lists, fractions)
def test_every_class_gives_its_share(values: list[int], fraction: float) -> None:
    labels = np.array(values, np.int64)
    aside = cut(labels, fraction, purpose="validation")
    for label in set(values):
        total, taken = counts(labels, aside, label)
        if total == 1:
            assert taken == 0
        else:
            assert abs(taken - total * fraction) <= 0.5 + 1e-9 or taken == 1
            assert 1 <= taken <= total - 1


@given(label_lists, fractions)
def test_a_cut_follows_from_its_arguments(values: list[int], fraction: float) -> None:
    labels = np.array(values, np.int64)
    again = cut(labels.copy(), fraction, purpose="validation")
    assert (cut(labels, fraction, purpose="validation") == again).all()


def test_purposes_and_seeds_give_other_cuts() -> None:
    labels = np.repeat(np.arange(4), 50)
    plain = cut(labels, 0.2, purpose="test")
    assert (plain != cut(labels, 0.2, purpose="validation")).any()
    assert (plain != cut(labels, 0.2, purpose="test", seed=1)).any()


def test_nothing_is_cut_by_a_fraction_of_zero() -> None:
    assert not cut(np.zeros(10, np.int64), 0.0, purpose="test").any()
    assert len(cut(np.empty(0, np.int64), 0.3, purpose="test")) == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=1, max_size=150), fractions
)
def test_groups_stay_whole_and_no_class_is_lost(
    records: list[tuple[int, int]], fraction: float
) -> None:
    labels, groups = (np.array(column, np.int64) for column in zip(*records, strict=True))
    aside = cut(labels, fraction, groups=groups, purpose="validation")
    for group in set(groups.tolist()):
        assert len(set(aside[groups == group].tolist())) == 1
    for label in set(labels.tolist()):
        assert (~aside[labels == label]).any()


@given(st.integers(0, 1000), fractions)
def test_groups_are_cut_near_the_share_of_every_class(seed: int, fraction: float) -> None:
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, 200, 2000))
    labels = rng.choice(3, 2000, p=[0.85, 0.08, 0.07])
    aside = cut(labels, fraction, groups=groups, purpose="test")
    for label in range(3):
        total, taken = counts(labels, aside, label)
        assert abs(taken / total - fraction) < 0.03


def test_a_class_of_two_groups_gives_one_of_them() -> None:
    labels = np.array([0] * 50 + [1, 1])
    groups = np.array([*range(50), 50, 51])
    aside = cut(labels, 0.1, groups=groups, purpose="validation")
    assert aside[50:].sum() == 1


@pytest.mark.parametrize("count", [0, 1, 17, 60, 100])
def test_some_takes_of_each_class_its_share(count: int) -> None:
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)
    chosen = some(labels, count)
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert (np.diff(chosen) > 0).all()
    for label, whole in enumerate((50, 30, 20)):
        assert abs((labels[chosen] == label).sum() - count * whole / 100) <= 1
    assert (some(labels, count) == chosen).all()


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
