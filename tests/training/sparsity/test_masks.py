from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sixfold.core.errors import UserError
from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.training.sparsity import (
    Counts,
    Mask,
    kept_weights,
    load_mask,
    magnitude_mask,
    prunable,
    prune_counts,
    random_mask,
    save_mask,
)
from sixfold.training.sparsity.masks import _smallest


def smallest_by_sorting(ranks: torch.Tensor, count: int) -> torch.Tensor:
    """What `_smallest` gives, by the definition."""
    chosen = torch.zeros_like(ranks, dtype=torch.bool)
    chosen[torch.sort(ranks, stable=True).indices[:count]] = True
    return chosen


@given(
    values=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    part=st.floats(0, 1),
)
def test_ties_go_by_position(values: list[int], part: float) -> None:
    ranks = torch.tensor(values, dtype=torch.float64)
    count = round(part * len(values))
    found = _smallest(ranks, count)
    assert int(found.sum()) == count
    assert torch.equal(found, smallest_by_sorting(ranks, count))


def test_layers_of_a_network_and_their_kinds() -> None:
    network = build(ModelConfig(model="resnet20"), shape=(3, 32, 32), classes=10, seed=0)
    layers = prunable(network)
    assert [layer.kind for layer in layers] == ["conv"] * 19 + ["output"]
    assert sum(layer.size for layer in layers) == sum(
        m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    )


def test_a_shared_tensor_counts_once() -> None:
    shared = nn.Linear(4, 4)
    assert [layer.name for layer in prunable(nn.Sequential(shared, shared))] == ["0.weight"]


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_a_chain_of_prunings_is_nested_and_exact(scope: str) -> None:
    network = build(ModelConfig(model="lenet300"), shape=(1, 28, 28), classes=10, seed=3)
    layers = prunable(network)
    weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    total = sum(layer.size for layer in layers)
    mask: Mask | None = None
    for sparsity in (0.2, 0.36, 0.488, 0.95):
        already = {n: int((~kept).sum()) for n, kept in (mask or {}).items()}
        groups = prune_counts(layers, sparsity, scope=scope, already=already)
        new = magnitude_mask(weights, groups, within=mask)
        assert kept_weights(new) == (total - int(sparsity * total + 0.5), total)
        if mask is not None:
            assert all(not (new[n] & ~mask[n]).any() for n in new)
        # Other weights, as after a retraining: what was removed must not come back.
        weights = {n: torch.randn(w.shape) for n, w in weights.items()}
        mask = new


def test_the_threshold_is_a_quantile_of_the_magnitudes() -> None:
    weights = torch.randn(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = magnitude_mask({"w": weights}, [Counts(names=("w",), pruned=7_000)])["w"]
    threshold = torch.quantile(weights.abs(), 0.7)
    assert torch.equal(mask, weights.abs() > threshold)


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="no number"):
        magnitude_mask({"w": torch.tensor([float("nan")])}, [Counts(names=("w",), pruned=0)])
    within = {"w": torch.tensor([False, False, True])}
    with pytest.raises(ValueError, match="removed already"):
        magnitude_mask({"w": torch.ones(3)}, [Counts(names=("w",), pruned=1)], within)


def test_a_random_mask_keeps_the_counts_and_depends_on_the_seed() -> None:
    mask = {"a": torch.rand(40, 50) < 0.3, "b": torch.rand(7) < 0.5}
    drawn = random_mask(mask, 1)
    for name, kept in mask.items():
        assert drawn[name].shape == kept.shape
        assert drawn[name].sum() == kept.sum()
    assert torch.equal(drawn["a"], random_mask(mask, 1)["a"])
    assert not torch.equal(drawn["a"], random_mask(mask, 2)["a"])
    assert not torch.equal(drawn["a"], mask["a"])


def test_masks_on_disk(tmp_path: Path) -> None:
    mask = {"a.weight": torch.rand(4, 5) < 0.5}
    save_mask(tmp_path / "mask", mask)
    assert torch.equal(load_mask(tmp_path / "mask")["a.weight"], mask["a.weight"])
    data = (tmp_path / "mask").read_bytes()
    (tmp_path / "cut").write_bytes(data[:20])
    for name in ("cut", "none"):
        with pytest.raises(UserError, match="cannot be read"):
            load_mask(tmp_path / name)
