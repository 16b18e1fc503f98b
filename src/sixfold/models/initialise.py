"""Initial weights by the rules that the networks' papers state.

Each function fills a network's convolutions and linear layers in the order in which they stand in
it, drawing from torch's global generator, sets their biases to zero and returns the network.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def _weighted(network: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    """Convolutions and linear layers, their biases zeroed."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            yield layer
