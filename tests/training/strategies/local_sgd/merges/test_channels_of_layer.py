"""Which elements make up a feature map."""

import torch
from torch import nn

from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.training.step.flat import FlatState
from sixfold.training.strategies.local_sgd.merges.channels_of_layer import feature_maps


def test_a_map_is_a_row_its_bias_and_its_normalisation() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    state = FlatState(model)
    maps = feature_maps(state)
    assert maps.layers == {"0": range(3), "3": range(3, 5)}
    views = dict(state.named_views(maps.of[: len(state.parameters)]))
    views |= dict(state.named_buffers(maps.of[len(state.parameters) :]))
    assert views["0.weight"].flatten(1).tolist() == [[k] * 4 for k in range(3)]
    for name in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert views[name].tolist() == [0, 1, 2], name
    assert views["3.weight"].flatten(1).tolist() == [[3] * 3, [4] * 3]
    padding = torch.ones(len(maps.of), dtype=torch.bool)
    for name, view in views.items():
        assert (view < maps.count - 1).all(), name
    assert int((maps.of == maps.count - 1).sum()) == int(padding.sum()) - sum(
        view.numel() for view in views.values()
    )


def test_transposed_convolutions_and_lone_tensors() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 3, 2)
            self.scale = nn.Parameter(torch.ones(2, 2))
            self.norm = nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    state = FlatState(Scaled())
    maps = feature_maps(state)
    views = dict(state.named_views(maps.of[: len(state.parameters)]))
    assert views["up.weight"][:, :, 0, 0].tolist() == [[k, k + 1, k + 2] for k in [
        maps.layers["up"].start] * 2]  # fmt: skip
    assert len(set(views["scale"].flatten().tolist())) == 1
    assert len(maps.layers["norm.weight"]) == 1


def test_every_network_of_the_zoo_has_maps() -> None:
    model = build(
        ModelConfig(model="mobilenet_v2", model_args="width=0.25"),
        shape=(3, 16, 16),
        classes=10,
        seed=0,
    )
    state = FlatState(model)
    maps = feature_maps(state)
    convolutions = [
        name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    assert set(maps.layers) == set(convolutions)  # every batch-norm belongs to its convolution
