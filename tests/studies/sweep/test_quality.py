"""What each setting does, from accuracies that are sums of effects."""

import itertools

import pytest

from sixfold.studies.sweep.quality import Level, Trained, cells, chosen, effects, paired

VARIED = {"kernel": [3, 5], "batch": [1, 10, 100], "seed": [0, 1]}
KERNEL, BATCH, SEED = {3: 0.0, 5: 0.02}, {1: 0.0, 10: 0.05, 100: -0.1}, {0: 0.0, 1: 0.001}

TRAINED = [
    Trained(
        values={"kernel": k, "batch": b, "seed": s}, accuracy=0.5 + KERNEL[k] + BATCH[b] + SEED[s]
    )
    for k, b, s in itertools.product(*VARIED.values())
]


def test_effects_are_the_differences_that_were_put_in() -> None:
    found = {effect.name: effect for effect in effects(TRAINED, VARIED, 1000)}
    assert list(found) == ["kernel", "batch"]
    first, second = found["kernel"].levels
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.mean == pytest.approx(0.02)
    assert second.difference.pairs == 6
    assert second.difference.high - second.difference.low < 1e-9
    assert [level.trainings for level in found["batch"].levels] == [4, 4, 4]
    shares = sum(effect.share_of_variance or 0 for effect in found.values())
    assert 0.99 < shares < 1  # the rest is the seeds'


def test_missing_trainings_leave_their_pairs_out() -> None:
    few = [one for one in TRAINED if one.values != {"kernel": 3, "batch": 1, "seed": 0}]
    gap = effects(few, VARIED, 1000)[0].levels[1].difference
    assert gap is not None
    assert gap.pairs == 5
    none = [one for one in TRAINED if one.values["kernel"] == 3]
    assert effects(none, VARIED, 1000)[0].levels[1] == Level(value=5, trainings=0)


def test_cells_are_means_over_seeds() -> None:
    found = cells(TRAINED, 1000)
    assert len(found) == 6
    assert found[0].values == {"kernel": 3, "batch": 1}
    assert found[0].accuracy.mean == pytest.approx(0.5005)
    assert found[0].accuracy.seeds == 2


def test_the_best_value_is_chosen_on_the_validation_part_alone() -> None:
    trained = [
        Trained(
            values={"lr": lr, "batch": b, "seed": s},
            accuracy=1 - lr,
            validation=-abs(lr - best) + 0.001 * s,
        )
        for lr in (0.1, 0.2, 0.3)
        for b, best in ((1, 0.1), (10, 0.3))
        for s in (0, 1)
    ]
    found = chosen(trained, ["lr"])
    assert {(one.values["batch"], one.accuracy) for one in found} == {(1, 0.9), (10, 0.7)}
    assert len(found) == 4
    assert all("lr" not in one.values for one in found)


def test_a_value_with_which_a_seed_diverged_is_not_chosen() -> None:
    slow = [Trained(values={"lr": 1, "seed": s}, accuracy=0.5, validation=0.5) for s in (0, 1)]
    fast = [Trained(values={"lr": 9, "seed": 0}, accuracy=0.9, validation=0.9)]
    assert len(chosen([*slow, *fast], ["lr"])) == 1
    lost = [{"lr": 9, "seed": 1}]
    assert [one.accuracy for one in chosen([*slow, *fast], ["lr"], lost)] == [0.5, 0.5]
    assert [one.accuracy for one in chosen(fast, ["lr"], lost)] == [0.9]


def test_a_single_pair_says_little() -> None:
    found = paired([0.01], 100)
    assert found.low < -0.1
    assert found.high > 0.1
