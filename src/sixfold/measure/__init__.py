"""Measurement: what layers cost, what a machine can do, where the time of ranks went."""

from sixfold.measure.layers import FunctionCost, LayerCost, layer_costs, total
from sixfold.measure.machine import (
    Machine,
    load_machine,
    measure_machine,
    save_machine,
)

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
