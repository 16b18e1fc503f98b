"""Sixfold as spark.ml Estimator and Model: DataFrames in, DataFrames out.

Works in a classic session and over Spark Connect, by DataFrame operations alone for tables. Needs
the extra `spark`.
"""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.spark.estimator import SixfoldClassifier, SixfoldRegressor
    from sixfold.spark.model import (
        SixfoldClassificationModel,
        SixfoldRegressionModel,
        predict_udf,
    )

__all__ = [
    "SixfoldClassificationModel",
    "SixfoldClassifier",
    "SixfoldRegressionModel",
    "SixfoldRegressor",
    "predict_udf",
]

__getattr__ = lazy(
    __name__,
    {
        "estimator": ("SixfoldClassifier", "SixfoldRegressor"),
        "model": ("SixfoldClassificationModel", "SixfoldRegressionModel", "predict_udf"),
    },
)
