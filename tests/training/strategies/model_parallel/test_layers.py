"""Every kind of layer, divided in every way, against plain torch."""

import copy
from collections.abc import Callable

import pytest
import torch
from tests.marks import quick, some
from tests.training.strategies.model_parallel.divided import batch, deviation, run_divided
from torch import Tensor, nn
from torch.nn import functional

from sixfold.training.strategies.model_parallel.grid import Mesh

SHAPE = (3, 11, 9)
MESHES = [
    Mesh(cols=3),
    Mesh(cin=2),
    Mesh(rows=2, cols=2),
    Mesh(cout=2, cin=2, rows=2),
    Mesh(rows=7),
]


def head(*layers: nn.Module, shape: tuple[int, int, int] = SHAPE) -> nn.Sequential:
    """A convolution, the layers in question, and a linear layer on whatever they give."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(shape[0], 6, 3, padding=1), *layers, nn.Flatten())
    with torch.no_grad():
        features = body(torch.zeros(2, *shape)).shape[1]
    return nn.Sequential(body, nn.Linear(features, 2))


LAYERS: dict[str, Callable[[], list[nn.Module]]] = {
    "even kernel, stride": lambda: [nn.Conv2d(6, 5, 4, stride=2, padding=1)],
    "dilation": lambda: [nn.Conv2d(6, 4, (3, 2), padding=(2, 1), dilation=(2, 3), bias=False)],
    "padding same": lambda: [nn.Conv2d(6, 4, (4, 3), padding="same")],
    "padding more than the kernel": lambda: [nn.Conv2d(6, 4, 2, padding=4)],
    "stride beyond the kernel": lambda: [nn.Conv2d(6, 4, 1, stride=3)],
    "kernel as large as the map": lambda: [nn.Conv2d(6, 4, (11, 9))],
    "two groups": lambda: [nn.Conv2d(6, 10, 3, groups=2)],
    "three groups": lambda: [nn.Conv2d(6, 3, 3, groups=3, padding=1)],
    "depthwise": lambda: [nn.Conv2d(6, 6, 3, groups=6, padding=1)],
    "depthwise with multiplier": lambda: [nn.Conv2d(6, 12, 5, groups=6, padding=2, stride=2)],
    "max pool": lambda: [nn.ReLU(), nn.MaxPool2d(2)],
    "overlapping max pool": lambda: [nn.MaxPool2d(3, stride=2, padding=1)],
    "max pool, ceil mode": lambda: [nn.MaxPool2d(2, stride=2, ceil_mode=True)],
    "dilated max pool": lambda: [nn.MaxPool2d(3, stride=1, padding=1, dilation=2)],
    "average pool": lambda: [nn.AvgPool2d(3, stride=2, padding=1)],
    "average pool, pads not counted": lambda: [
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
    ],
    "average pool, ceil mode": lambda: [nn.AvgPool2d(2, stride=2, ceil_mode=True)],
    "average pool, ceil mode and pads": lambda: [
        nn.AvgPool2d((4, 3), stride=3, padding=1, ceil_mode=True)
    ],
    "average pool, divisor": lambda: [nn.AvgPool2d(2, divisor_override=3)],
    "adaptive average pool": lambda: [nn.AdaptiveAvgPool2d((4, 2))],
    "adaptive max pool": lambda: [nn.AdaptiveMaxPool2d((3, 5))],
    "mean of maps": lambda: [nn.AdaptiveAvgPool2d(1)],
    "batch norm": lambda: [nn.BatchNorm2d(6), nn.ReLU()],
    "batch norm without weights": lambda: [
        nn.BatchNorm2d(6, affine=False, momentum=None),
        nn.ReLU(inplace=True),
    ],
    "batch norm without statistics": lambda: [nn.BatchNorm2d(6, track_running_stats=False)],
    "batch norm of features": lambda: [nn.Flatten(), nn.BatchNorm1d(6 * 11 * 9)],
    "batch norm of a vector": lambda: [nn.Flatten(), nn.Linear(594, 7), nn.BatchNorm1d(7)],
    "response norm": lambda: [nn.LocalResponseNorm(5, alpha=0.5)],
    "response norm of even size": lambda: [nn.LocalResponseNorm(4, alpha=0.5)],
    "zero padding": lambda: [nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(6, 4, 3)],
    "padded channels": lambda: [nn.ConstantPad3d((0, 0, 0, 0, 1, 2), 0.5)],
    "cropping": lambda: [nn.ConstantPad2d((-1, -2, -3, 1), 0.5)],
    "dropout": lambda: [nn.Dropout(0.0), nn.Flatten(), nn.Dropout(0.0)],
    "linear layers": lambda: [nn.Flatten(), nn.Linear(594, 5), nn.Tanh(), nn.Linear(5, 3)],
    "activations": lambda: [nn.GELU(), nn.Hardswish(), nn.LeakyReLU(0.1, inplace=True)],
    "softmax": lambda: [nn.Flatten(), nn.Linear(594, 5), nn.LogSoftmax(dim=1)],
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("mesh", quick(MESHES, Mesh(cout=2, cin=2, rows=2)), ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_divided_layer_is_the_layer(name: str, mesh: Mesh) -> None:
    assert deviation(head(*LAYERS[name]()), SHAPE, mesh) < 1e-10


class Branches(nn.Module):
    """Residual additions, concatenation, squeeze-and-excitation, and functions for layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.left = nn.Conv2d(6, 6, 5, padding=2)
        self.right = nn.Conv2d(6, 4, 1)
        self.squeeze = nn.Conv2d(10, 3, 1)
        self.excite = nn.Conv2d(3, 10, 1)
        self.norm = nn.BatchNorm2d(10)
        self.first = nn.Linear(10 * 5 * 4, 6)
        self.second = nn.Linear(10, 6)
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = torch.cat([x + self.left(x), self.right(x)], dim=1)
        scale = functional.adaptive_avg_pool2d(x, 1)
        scale = torch.sigmoid(self.excite(functional.silu(self.squeeze(scale))))
        x = self.norm(x * scale) * 0.5 + 1
        mean = x.mean((2, 3))
        x = functional.max_pool2d(x, 2)
        x = x.view(x.size(0), -1)
        return self.last(torch.cat([self.first(x), self.second(mean)], 1))  # type: ignore[no-any-return]


class InPlace(nn.Module):
    """An activation in place changes what a shortcut adds later."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4 * 9 * 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(self.relu(x))
        y += x
        return self.last(y.flatten(1))  # type: ignore[no-any-return]


class NoLinear(nn.Module):
    """The output is the mean of the last convolution's maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(functional.adaptive_avg_pool2d(self.conv(x), (1, 1)), 1)


class LastConv(nn.Module):
    """The output is a convolution's."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 2, (11, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x)).flatten(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("mesh", some([*MESHES, Mesh(cout=2, cols=3)], 3), ids=str)
@pytest.mark.parametrize("network", [Branches, InPlace, NoLinear, LastConv])
def test_the_users_own_network_is_divided_from_outside(
    network: Callable[[], nn.Module], mesh: Mesh
) -> None:
    torch.manual_seed(0)
    assert deviation(network(), SHAPE, mesh) < 1e-10


def test_dropout_masks_are_those_of_the_whole_tensor() -> None:
    from tests.training.strategies.model_parallel.divided import batch, run_divided

    network = head(nn.Dropout2d(0.5), nn.Flatten(), nn.Dropout(0.5)).double()
    images, labels = batch(SHAPE, 4, 2)
    (whole,) = run_divided(network, SHAPE, Mesh(), images, labels)
    for mesh in MESHES:
        for found in run_divided(network, SHAPE, mesh, images, labels):
            assert float((found.logits - whole.logits).abs().max()) < 1e-12


def test_the_same_division_gives_the_same_bits() -> None:
    from tests.training.strategies.model_parallel.divided import batch, run_divided

    images, labels = batch(SHAPE, 4, 2)
    for mesh in (Mesh(rows=3), Mesh(cout=2, cin=2)):
        network = Branches().double()
        one, two = (run_divided(network, SHAPE, mesh, images, labels) for _ in range(2))
        for first, second in zip(one, two, strict=True):
            assert torch.equal(first.logits, one[0].logits)
            for name, gradient in first.gradients.items():
                assert torch.equal(gradient, second.gradients[name])


class Functional(nn.Module):
    """What docs/strategies.md promises besides layers: their functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Linear(6 * 12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(self.first(x), (1, 0, 2, 1), value=0.5)
        x = functional.local_response_norm(functional.relu(x, True), 3, alpha=0.1)
        x = functional.dropout(x, 0.3, self.training)
        x = functional.adaptive_max_pool2d(functional.leaky_relu_(x, 0.1), (4, 3)).tanh_()
        x = functional.dropout(x.flatten(1), p=0.5, training=self.training)
        return functional.log_softmax(self.last(x), dim=1)


@pytest.mark.parametrize("mesh", MESHES[:4], ids=str)
def test_functions_are_divided_as_their_layers(mesh: Mesh) -> None:
    torch.manual_seed(0)
    network = Functional().double().train()
    images, labels = batch(SHAPE, 3, 2)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    whole = copy.deepcopy(network)(images)
    for found in run_divided(network, SHAPE, mesh, images, labels):
        assert (found.logits - whole).abs().max() < 1e-10


@pytest.mark.parametrize("mesh", [Mesh(rows=2), Mesh(cout=2)], ids=str)
def test_weights_gradients_are_made_while_the_inputs_gradient_travels(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.training.layers.convolution.PRODUCTS_IN_TWO", 0)
    network = head(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3))
    assert deviation(network, SHAPE, mesh) < 1e-10
