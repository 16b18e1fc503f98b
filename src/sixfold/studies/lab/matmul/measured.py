"""What was measured of a product, and of each way to divide it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.matmul.model import Prediction
from sixfold.studies.lab.matmul.operands import Product


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """A way to divide a product."""

    way: str
    costs: list[Cost]  # of every timed run
    cost: Cost  # of the median run
    kernel_s: float  # time inside the kernels, over all tasks, in that run
    error: float  # the largest error of samples
    right: bool  # whether that is rounding
    predicted: Prediction | None  # what the model says


@dataclass(frozen=True, kw_only=True)
class MeasuredProduct:
    """A product and the ways to divide it."""

    product: Product
    alone_s: float  # on one thread, without Spark
    alone_predicted_s: float  # what the model says of that
    ways: list[MeasuredWay]

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"name": self.product.name, "flops": self.product.flops}
