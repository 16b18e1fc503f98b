"""Which tensors of a network are pruned, where weights are made of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from sixfold.training.sparsity import prunable
from sixfold.training.sparsity.layers import layer_name, left_alone

MADE: dict[str, tuple[Callable[[nn.Module], nn.Module], str | None]] = {
    "spectral norm": (parametrizations.spectral_norm, "0.parametrizations.weight.original"),
    "weight norm": (parametrizations.weight_norm, None),
    "orthogonal": (parametrizations.orthogonal, None),
    "the older spectral norm": (spectral_norm, "0.weight_orig"),
    "torch's pruning": (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),  # type: ignore[no-untyped-call]
        "0.weight_orig",
    ),
}


@pytest.mark.parametrize("case", MADE)
def test_a_weight_made_of_others_is_pruned_where_zeros_stay_zeros(case: str) -> None:
    make, stored = MADE[case]
    network = nn.Sequential(make(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(16, 2))
    names = [layer.name for layer in prunable(network)]
    assert names == [*([stored] if stored else []), "2.weight"]
    assert [layer_name(name) for name in names] == (["0", "2"] if stored else ["2"])
    assert left_alone(network).startswith("layer '0' stays dense") == (stored is None)
