"""Rewrites change no bit of values or gradients; folded batch-norm nothing but rounding."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.training.layers.rewrites import folded_batch_norm, relu_behind_max_pool


def outcome(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Output, input gradient, and every parameter's gradient."""
    images = images.clone().requires_grad_()
    network.zero_grad()
    output = network(images)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * weights).sum().backward()
    assert images.grad is not None
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    return [output.detach(), images.grad, *gradients]


@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    ceil=st.booleans(),
    levels=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 1000),
)
def test_relu_and_max_pool_commute_bit_for_bit(
    kernel: int, stride: int, padding: int, dilation: int, ceil: bool, levels: int, seed: int
) -> None:
    """Few levels make many ties and many windows without a positive value."""
    padding = min(padding, kernel // 2)
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-levels, levels // 2, (2, 3, 9, 11), generator=generator).float()
    before = outcome(nn.Sequential(nn.ReLU(), pool), images)
    swapped = relu_behind_max_pool(nn.Sequential(nn.ReLU(), pool))
    assert isinstance(swapped[0], nn.MaxPool2d)  # type: ignore[index]
    for a, b in zip(before, outcome(swapped, images), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("slide", 16),
        ("lenet5", 28),
        ("cells", 64),
        ("conv4", 16),
        pytest.param("vgg16", 32, marks=pytest.mark.full),
    ],
)
def test_networks_of_the_zoo_keep_names_values_and_gradients(name: str, side: int) -> None:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))

    def make() -> nn.Module:
        return build(ModelConfig(model=name), shape=(3, side, side), classes=4, seed=3).eval()

    plain, rewritten = make(), relu_behind_max_pool(make())
    assert list(plain.state_dict()) == list(rewritten.state_dict())
    for a, b in zip(outcome(plain, images), outcome(rewritten, images), strict=True):
        # The kernels may add in another order where the memory layout differs.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_no_plain_pair_is_left_alone() -> None:
    class Special(nn.MaxPool2d):
        pass

    for pair in (
        [nn.MaxPool2d(2), nn.ReLU()],
        [nn.ReLU(), nn.AvgPool2d(2)],
        [nn.ReLU(), Special(2)],
        [nn.ReLU(), nn.MaxPool2d(2, return_indices=True)],
        [nn.LeakyReLU(), nn.MaxPool2d(2)],
    ):
        network = relu_behind_max_pool(nn.Sequential(*pair))
        assert list(network.children()) == pair


def used(network: nn.Module) -> nn.Module:
    """A network whose norms have seen something, and have weights of their own."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.running_mean, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 2.0, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    "name", ["resnet20", "mobilenet_v2", pytest.param("vgg16", marks=pytest.mark.full)]
)
def test_folded_batch_norm_is_the_same_function(name: str) -> None:
    network = used(build(ModelConfig(model=name), shape=(3, 32, 32), classes=5, seed=0)).double()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    wanted = network(images)
    folded = folded_batch_norm(copy.deepcopy(network))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_any_convolution_can_be_folded_into(affine: bool, bias: bool, groups: int) -> None:
    network = used(
        nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=2, bias=bias, groups=groups), nn.BatchNorm2d(6, affine=affine)
        )
    ).double()
    images = torch.randn(2, 4, 9, 9).double()
    wanted = network(images)
    torch.testing.assert_close(folded_batch_norm(network)(images), wanted)
    assert isinstance(list(network.children())[1], nn.Identity)


def test_norms_that_train_or_are_watched_are_not_folded() -> None:
    with pytest.raises(ValueError, match="for inference only"):
        folded_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    watched = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    watched[1].register_forward_hook(lambda module, inputs, output: None)
    assert isinstance(list(folded_batch_norm(watched).children())[1], nn.BatchNorm2d)
    without = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).eval()
    assert isinstance(list(folded_batch_norm(without).children())[1], nn.BatchNorm2d)
