"""Initial weights by the rules that the networks' papers state.

Each function fills a network's convolutions and linear layers in the order in which they stand in
it, drawing from torch's global generator, sets their biases to zero and returns the network.
"""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def glorot_normal(network: Network) -> Network:
    """Normal, variance 2 / (fan_in + fan_out). X. Glorot, Y. Bengio, AISTATS 2010."""
    for layer in _weighted(network):
        nn.init.xavier_normal_(layer.weight)
    return network


def he_normal(network: Network) -> Network:
    """Normal, variance 2 / fan_in. K. He et al., "Delving deep into rectifiers", ICCV 2015.

    The 2 makes up for the half that a ReLU takes away; the last layer, which none follows, gets
    1 / fan_in, or else the first losses would be far above log K.
    """
    *hidden, last = _weighted(network)
    for layer in hidden:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.kaiming_normal_(last.weight, nonlinearity="linear")
    return network


def caffe_uniform(network: Network) -> Network:
    """Uniform, variance 1 / fan_in: the filler that Caffe calls "xavier"."""
    for layer in _weighted(network):
        nn.init.kaiming_uniform_(layer.weight, mode="fan_in", nonlinearity="linear")
    return network


def small_normal(network: Network) -> Network:
    """Normal, standard deviation 0.01, whatever the layer: the rule of AlexNet's time.

    A. Krizhevsky, I. Sutskever, G. E. Hinton, NIPS 2012, section 5 (biases are zero here).
    """
    for layer in _weighted(network):
        nn.init.normal_(layer.weight, std=0.01)
    return network


def as_built(network: Network) -> Network:
    """As torch's layers fill themselves: uniform, variance 1 / (3 fan_in), biases too."""
    return network


RULES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch": as_built,
    "he": he_normal,
    "glorot": glorot_normal,
    "caffe": caffe_uniform,
    "small": small_normal,
}
"""Name, as an argument `init` takes it, to rule."""


def initialised(network: Network, init: str) -> Network:
    """The network filled by the rule of that name."""
    if init not in RULES:
        near = get_close_matches(init, RULES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"init={init}{hint} must be one of {', '.join(RULES)}")
    RULES[init](network)
    return network


def _weighted(network: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    """Convolutions and linear layers, their biases zeroed."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            yield layer
