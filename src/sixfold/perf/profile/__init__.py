"""Measurement: what layers cost, what a machine can do, where the time of ranks went."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sixfold.perf.profile.cost import FunctionCost, LayerCost
    from sixfold.perf.profile.layers import layer_costs, total
    from sixfold.perf.profile.machine import Machine, load_machine, measure_machine, save_machine

__all__ = [
    "FunctionCost",
    "LayerCost",
    "Machine",
    "layer_costs",
    "load_machine",
    "measure_machine",
    "save_machine",
    "total",
]

_HOMES = {
    "cost": ("FunctionCost", "LayerCost"),
    "layers": ("layer_costs", "total"),
    "machine": ("Machine", "load_machine", "measure_machine", "save_machine"),
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the options of the command line must not import torch.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"sixfold.perf.profile.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
