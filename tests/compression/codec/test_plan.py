import pytest
import torch

from sixfold.compression.codec.plan import (
    as_text,
    read_bits,
    read_by_layer,
    read_sparsity,
    spread_globally,
)
from sixfold.training.sparsity import Prunable

LAYERS = [
    Prunable(name="features.0.weight", kind="conv", shape=(4, 5), size=20),
    Prunable(name="features.2.weight", kind="conv", shape=(4, 5), size=20),
    Prunable(name="fc.weight", kind="output", shape=(2, 5), size=10),
]


def test_the_more_special_value_counts_wherever_it_stands() -> None:
    found = read_by_layer("features.2=0.1, conv=0.7,0.9", LAYERS, read_sparsity, 0.0)
    assert found == {"features.0.weight": 0.7, "features.2.weight": 0.1, "fc.weight": 0.9}
    assert read_by_layer("output=3", LAYERS, read_bits, 8)["features.0.weight"] == 8
    assert read_by_layer(as_text(found), LAYERS, read_sparsity, 0.0) == found


@pytest.mark.parametrize("text", ["1.0", "-0.1", "much", "conv=1", "conv=", "nan"])
def test_parts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no part to be removed"):
        read_by_layer(text, LAYERS, read_sparsity, 0.0)


@pytest.mark.parametrize("text", ["0.5,0.6", "conv=0.5,0.1,conv=0.5"])
def test_two_values_for_the_same_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="there are two values for"):
        read_by_layer(text, LAYERS, read_sparsity, 0.0)


@pytest.mark.parametrize("text", ["0", "10", "4.5", "-3", "²"])
def test_bits_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no number of bits"):
        read_by_layer(text, LAYERS, read_bits, 8)


def test_unknown_layers_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'features\.1'.*features\.0.*fc"):
        read_by_layer("features.1=0.5", LAYERS, read_sparsity, 0.0)


def test_global_sparsity_falls_on_the_small_weights() -> None:
    weights = {
        "features.0.weight": torch.full((4, 5), 0.1),
        "features.2.weight": torch.full((4, 5), 1.0),
        "fc.weight": torch.full((2, 5), 2.0),
    }
    found = spread_globally(weights, LAYERS, 0.4)
    assert found["features.2.weight"] == found["fc.weight"] == 0
    assert found["features.0.weight"] == pytest.approx(0.95)  # one weight is left
