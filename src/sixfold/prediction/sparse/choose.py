"""Which layers of a pruned network run faster in sparse form: measured, layer by layer.

Every convolution and linear layer is run on what really reaches it, dense and in each sparse form,
in turns, and keeps the form that was fastest, if it beats the dense layer by a margin. The choice
is written to a file and used only from there (`sixfold predict --sparse FILE`), so that the same
command gives the same bits.
"""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json, write_json
from sixfold.prediction.sparse.dead_channels import remove_dead_channels
from sixfold.prediction.sparse.layers import FORMS, can_be_sparse, sparse_layer
from sixfold.training.sparsity.counts import Counts
from sixfold.training.sparsity.masks import magnitude_mask

MARGIN = 0.95
"""A sparse form must take less than this part of the dense layer's time: timings have noise."""

DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Parts of weights left at which the crossover is looked for."""


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """One layer at one batch size."""

    name: str
    batch: int  # N
    density: float  # part of its weights that are not zero
    seconds: dict[str, float]  # of a run by form; "dense" is among them
    # density below which a sparse form wins, if it was looked for; 0 if none does
    crossover: float | None = None

    @property
    def best(self) -> str:
        """The form to be used."""
        form = min(FORMS, key=lambda name: self.seconds[name])
        return form if self.seconds[form] < MARGIN * self.seconds["dense"] else "dense"


def measure(
    network: nn.Module,
    shape: tuple[int, int, int],
    batch: int,
    *,
    repeats: int,
    crossover: bool = False,
) -> list[LayerTimes]:
    """Time every layer of a pruned network that has a sparse form, on one thread.

    Of `repeats` timings of each form the least counts. `crossover`: also look for the density at
    which the sparse forms begin to win.
    """
    found = []
    for name, layer, inputs in _inputs(network, shape, batch):
        density = float((layer.weight != 0).float().mean())
        seconds = _times(layer, inputs, repeats)
        point = _crossover(layer, inputs, repeats) if crossover else None
        found.append(
            LayerTimes(name=name, batch=batch, density=density, seconds=seconds, crossover=point)
        )
    return found


def _inputs(
    network: nn.Module, shape: tuple[int, int, int], batch: int
) -> list[tuple[str, Any, Tensor]]:
    seen: list[tuple[str, Any, Tensor]] = []
    generator = torch.Generator().manual_seed(0)
    dtype = next(network.parameters()).dtype
    images = torch.randn(batch, *shape, generator=generator, dtype=dtype)
    handles = []
    for name, module in network.named_modules():
        if can_be_sparse(module):

            def hook(layer: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                seen.append((name, layer, inputs[0].clone()))

            handles.append(module.register_forward_pre_hook(hook))
    try:
        with torch.inference_mode():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _times(layer: nn.Module, inputs: Tensor, repeats: int) -> dict[str, float]:
    layers = {"dense": layer} | {form: sparse_layer(layer, form) for form in FORMS}
    return _least_seconds(layers, inputs, repeats)


def _least_seconds(
    layers: Mapping[str, nn.Module], inputs: Tensor, repeats: int
) -> dict[str, float]:
    """Of each of some layers or networks, taken in turns."""
    least = dict.fromkeys(layers, float("inf"))
    with torch.inference_mode():
        for run in range(repeats + 1):  # the first warms up
            for name, layer in layers.items():
                begin = time.perf_counter()
                layer(inputs)
                if run:
                    least[name] = min(least[name], time.perf_counter() - begin)
    return least


def _crossover(layer: Any, inputs: Tensor, repeats: int) -> float:
    """The largest of `DENSITIES` at which a sparse form wins."""
    whole = layer.weight.detach().clone()
    try:
        for density in DENSITIES:
            pruned = round((1 - density) * whole.numel())
            values = torch.where(whole == 0, torch.randn_like(whole), whole)
            keep = magnitude_mask({"w": values}, [Counts(names=("w",), pruned=pruned)])["w"]
            layer.weight.data = values * keep
            times = LayerTimes(
                name="", batch=0, density=density, seconds=_times(layer, inputs, repeats)
            )
            if times.best != "dense":
                return density
        return 0.0
    finally:
        layer.weight.data = whole


def time_network(
    networks: Mapping[str, nn.Module], shape: tuple[int, int, int], batch: int, repeats: int
) -> dict[str, float]:
    """Least seconds of whole networks, taken in turns."""
    dtype = next(next(iter(networks.values())).parameters()).dtype
    return _least_seconds(networks, torch.randn(batch, *shape, dtype=dtype), repeats)


def save_choice(path: Path, times: Sequence[LayerTimes]) -> dict[str, Any]:
    """Write which form each layer takes."""
    choice = {
        "batch": times[0].batch if times else 0,
        "layers": {found.name: found.best for found in times},
        "times": [dataclasses.asdict(found) for found in times],
    }
    write_json(path, choice)
    return choice


def load_choice(path: Path) -> dict[str, str]:
    """Form by name of the layer."""
    try:
        layers = parse_json(path.read_text(encoding="utf-8"))["layers"]
        if all(form in ("dense", *FORMS) for form in layers.values()):
            return {str(name): str(form) for name, form in layers.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no file of `sixfold sparse` ({error})") from error
    raise UserError(f"{path} is no file of `sixfold sparse`: it names unknown forms")


def sparse_network(
    network: nn.Module, shape: tuple[int, int, int], layers: Mapping[str, str]
) -> nn.Module:
    """A pruned network as it runs fastest: without dead channels, chosen layers sparse; in place.

    It is in evaluation mode; `layers` is from `load_choice`.
    """
    remove_dead_channels(network, shape)
    return apply_choice(network, layers.items())


def apply_choice(network: nn.Module, layers: Iterable[tuple[str, str]]) -> nn.Module:
    """Replace layers by their sparse forms, in place."""
    for name, form in layers:
        if form == "dense":
            continue
        parent, _, child = name.rpartition(".")
        try:
            layer = network.get_submodule(name)
            replacement = sparse_layer(layer, form)
        except (AttributeError, ValueError) as error:
            raise UserError(f"layer {name} cannot be made sparse: {error}") from None
        setattr(network.get_submodule(parent), child, replacement)
    return network
