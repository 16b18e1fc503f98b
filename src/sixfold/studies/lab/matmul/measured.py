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
    """A way to divide a product.

    Attributes:
        way: its name.
        costs: of every timed run.
        cost: of the median run.
        kernel_s: time inside the kernels, over all tasks, in that run.
        error: the largest error of samples.
        right: whether that is rounding.
        predicted: what the model says.
    """

    way: str
    costs: list[Cost]
    cost: Cost
    kernel_s: float
    error: float
    right: bool
    predicted: Prediction | None


@dataclass(frozen=True, kw_only=True)
class MeasuredProduct:
    """A product and the ways to divide it.

    Attributes:
        product: its sizes.
        alone_s: on one thread, without Spark.
        alone_predicted_s: what the model says of that.
        ways: measured.
    """

    product: Product
    alone_s: float
    alone_predicted_s: float
    ways: list[MeasuredWay]

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"name": self.product.name, "flops": self.product.flops}
