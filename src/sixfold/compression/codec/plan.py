"""How far each layer is compressed: settings by layer, read from one line of text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from sixfold.training.sparsity import Prunable, magnitude_mask, prune_counts
from sixfold.training.sparsity.counts import KINDS
from sixfold.training.sparsity.layers import layer_name

Value = TypeVar("Value", int, float)
BITS = range(1, 10)  # Of a shared weight: at most 511 values and zero


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of each layer, by name of its weight tensor."""

    sparsity: dict[str, float]  # part of its weights that is removed, in [0, 1)
    bits: dict[str, int]  # of a shared weight: 2**bits symbols, one of them zero

    def untouched(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Float tensors of two and more dims that are neither pruned nor shared."""
        return [
            name
            for name, tensor in tensors.items()
            if tensor.dim() >= 2 and name not in self.bits and tensor.is_floating_point()
        ]


def read_by_layer(
    text: str, layers: Sequence[Prunable], read: Callable[[str], Value], default: Value
) -> dict[str, Value]:
    """A value for each layer, by name of the weight tensor; ValueError says what is wrong.

    ``0.9``, or a list such as ``0.9,conv=0.7,output=0.5,features.0=0.34``: a value for all, for a
    kind of layer, for one layer. The more special one counts. A layer that is called like a kind is
    given as ``fc.weight``.

    >>> layers = [Prunable(name="a.weight", kind="conv", shape=(2,), size=2),
    ...           Prunable(name="b.weight", kind="output", shape=(2,), size=2)]
    >>> read_by_layer("5,conv=8", layers, int, 6)
    {'a.weight': 8, 'b.weight': 5}
    """
    by_name: dict[str, str] = {layer_name(layer.name): layer.name for layer in layers}
    for_all, for_kind, for_layer = default, dict[str, Value](), dict[str, Value]()
    given = set[str]()
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value_text = part.rpartition("=")
        value = read(value_text)
        key = key.strip()
        if key in given:
            raise ValueError(f"{part!r}: there are two values for {key or 'all layers'}")
        given.add(key)
        if not equals:
            for_all = value
        elif key in KINDS:
            for_kind[key] = value
        elif layer_name(key) in by_name:
            for_layer[by_name[layer_name(key)]] = value
        else:
            known = ", ".join([*KINDS, *by_name])
            raise ValueError(f"there is no layer {key!r}: give one of {known}")
    return {
        layer.name: for_layer.get(layer.name, for_kind.get(layer.kind, for_all)) for layer in layers
    }


def read_sparsity(text: str) -> float:
    """A part to be removed; ValueError if it is none."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ValueError(f"{text!r} is no part to be removed: give a number from 0 to below 1")
    return value


def read_bits(text: str) -> int:
    """A number of bits; ValueError if it is none."""
    if not text.strip().isdecimal() or int(text) not in BITS:
        raise ValueError(f"{text!r} is no number of bits: give {BITS[0]} to {BITS[-1]}")
    return int(text)


def spread_globally(
    weights: Mapping[str, Tensor], layers: Sequence[Prunable], sparsity: float
) -> dict[str, float]:
    """The sparsity of each layer if the smallest weights of the whole network are removed."""
    mask = magnitude_mask(weights, prune_counts(layers, sparsity, scope="global"))
    # A layer that loses everything would cut the network in two.
    return {
        name: min(1 - int(kept.sum()) / kept.numel(), 1 - 1 / kept.numel())
        for name, kept in mask.items()
    }


def as_text(values: Mapping[str, float]) -> str:
    """Values by layer as the text that `read_by_layer` reads."""
    return ",".join(
        f"{name if layer_name(name) in KINDS else layer_name(name)}={value:g}"
        for name, value in values.items()
    )
