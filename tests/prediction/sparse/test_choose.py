from pathlib import Path

import pytest
import torch
from torch import nn

from sixfold.core.errors import UserError
from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.prediction.sparse.choose import (
    LayerTimes,
    apply_choice,
    load_choice,
    measure,
    save_choice,
)
from sixfold.prediction.sparse.layers import SparseLinear
from sixfold.training.sparsity import magnitude_mask, prunable, prune_counts


def pruned(model: str, sparsity: float) -> nn.Module:
    network = build(ModelConfig(model=model), shape=(1, 28, 28), classes=10, seed=0).eval()
    weights = dict(network.named_parameters())
    mask = magnitude_mask(weights, prune_counts(prunable(network), sparsity, scope="layerwise"))
    with torch.no_grad():
        for name, keep in mask.items():
            weights[name].mul_(keep)
    return network


def test_every_layer_is_measured_with_what_reaches_it() -> None:
    network = pruned("lenet5", 0.9)
    before = {name: p.clone() for name, p in network.named_parameters()}
    times = measure(network, (1, 28, 28), 3, repeats=1, crossover=True)
    assert [found.name for found in times] == [
        "features.0",
        "features.2",
        "classifier.1",
        "classifier.3",
    ]
    for found in times:
        assert found.density == pytest.approx(0.1, abs=0.01)
        assert set(found.seconds) == {"dense", "csr", "axpy"}
        assert min(found.seconds.values()) > 0
        assert found.crossover is not None
        assert 0 <= found.crossover <= 0.5
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_form_is_used_only_where_it_is_faster() -> None:
    def best(**seconds: float) -> str:
        return LayerTimes(name="x", batch=1, density=0.1, seconds=seconds).best

    assert best(dense=1.0, csr=0.5, axpy=0.6) == "csr"
    assert best(dense=1.0, csr=0.7, axpy=0.6) == "axpy"
    assert best(dense=1.0, csr=0.96, axpy=2.0) == "dense"


def test_a_choice_is_written_read_and_applied(tmp_path: Path) -> None:
    network, reference = pruned("lenet300", 0.95), pruned("lenet300", 0.95)
    times = [
        LayerTimes(name=name, batch=4, density=0.05, seconds=seconds)
        for name, seconds in {
            "fc1": {"dense": 1.0, "csr": 0.1, "axpy": 0.2},
            "fc2": {"dense": 1.0, "csr": 2.0, "axpy": 2.0},
            "fc3": {"dense": 1.0, "csr": 0.5, "axpy": 0.2},
        }.items()
    ]
    save_choice(tmp_path / "choice.json", times)
    layers = load_choice(tmp_path / "choice.json")
    assert layers == {"fc1": "csr", "fc2": "dense", "fc3": "axpy"}
    apply_choice(network, layers.items())
    assert isinstance(network.get_submodule("fc1"), SparseLinear)
    assert type(network.get_submodule("fc2")) is nn.Linear
    images = torch.randn(4, 1, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), reference(images), rtol=1e-4, atol=1e-5)


def test_files_and_layers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for text in ("", "[]", '{"layers": {"fc1": "magic"}}'):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(UserError, match="no file of `sixfold sparse`"):
            load_choice(tmp_path / "bad")
    with pytest.raises(UserError, match="layer fc9 cannot be made sparse"):
        apply_choice(pruned("lenet300", 0.5), [("fc9", "csr")])
