"""Measurement: what layers cost, what a machine can do, where the time of ranks went."""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.perf.profile.cost import FunctionCost, LayerCost
    from sixfold.perf.profile.layers import layer_costs, total
    from sixfold.perf.profile.limits import Machine, load_machine, save_machine
    from sixfold.perf.profile.machine import measure_machine

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

__getattr__ = lazy(
    __name__,
    {
        "cost": ("FunctionCost", "LayerCost"),
        "layers": ("layer_costs", "total"),
        "limits": ("Machine", "load_machine", "save_machine"),
        "machine": ("measure_machine",),
    },
)
