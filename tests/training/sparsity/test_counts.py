import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.training.sparsity.counts import prune_counts, round_for
from sixfold.training.sparsity.layers import Prunable


def layer(name: str, size: int, kind: str = "fc") -> Prunable:
    return Prunable(name=name, kind=kind, shape=(size,), size=size)


LENET = [layer("fc1", 235_200), layer("fc2", 30_000), layer("fc3", 1_000, "output")]


@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("rates", [None, {"fc": 0.2, "output": 0.1}])
@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    sparsity=st.floats(0, 0.999),
)
def test_the_whole_loses_exactly_what_was_asked_for(
    scope: str, rates: dict[str, float] | None, sizes: list[int], sparsity: float
) -> None:
    layers = [layer(str(i), size) for i, size in enumerate(sizes)]
    layers[-1] = layer("last", sizes[-1], "output")
    groups = prune_counts(layers, sparsity, scope=scope, rates=rates)
    assert sum(group.pruned for group in groups) == math.floor(sparsity * sum(sizes) + 0.5)
    by_name = {layer.name: layer.size for layer in layers}
    for group in groups:
        assert 0 <= group.pruned <= sum(by_name[name] for name in group.names)


def test_twenty_percent_of_every_layer_is_twenty_percent() -> None:
    groups = prune_counts(LENET, 0.2, scope="layerwise")
    assert [group.pruned for group in groups] == [47_040, 6_000, 200]


def test_global_ranks_all_layers_together_and_with_rates_all_of_a_kind() -> None:
    assert [g.names for g in prune_counts(LENET, 0.5)] == [("fc1", "fc2", "fc3")]
    rates = {"fc": 0.2, "output": 0.1}
    assert [g.names for g in prune_counts(LENET, 0.5, rates=rates)] == [("fc1", "fc2"), ("fc3",)]


def test_rates_are_those_of_the_paper_after_whole_rounds() -> None:
    rates = {"fc": 0.2, "output": 0.1}
    left = 265_200 * 0.8**3 + 1_000 * 0.9**3
    groups = prune_counts(LENET, 1 - left / 266_200, rates=rates)
    assert groups[0].pruned == pytest.approx(265_200 * (1 - 0.8**3), abs=1)
    assert groups[1].pruned == pytest.approx(1_000 * (1 - 0.9**3), abs=1)


def test_what_was_removed_before_stays_removed() -> None:
    layers = [layer("a", 10), layer("b", 10)]
    groups = prune_counts(layers, 0.5, scope="layerwise", already={"a": 8})
    assert [group.pruned for group in groups] == [8, 2]
    groups = prune_counts(layers, 0.1, scope="layerwise", already={"a": 8})
    assert [group.pruned for group in groups] == [8, 0]


def test_layers_that_are_never_pruned_bound_the_sparsity() -> None:
    with pytest.raises(ValueError, match="never pruned"):
        round_for([100, 100], [0.0, 0.2], 0.6)
    assert prune_counts(LENET, 0.5, rates={"fc": 0.2, "output": 0.0})[1].pruned == 0
