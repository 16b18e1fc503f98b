"""Sixfold's training as a spark.ml Estimator.

Prediction, columns and Params follow Spark's conventions. The table's images are written to tensor
shards by the executors (`sixfold.spark.table`), then ranks train on them in the session's executors
as `sixfold train --data shards:DIR` would, to the same bits.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml import Estimator
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasValidationIndicatorCol, HasWeightCol
from pyspark.ml.util import DefaultParamsReadable, MLWritable

from sixfold.core.errors import SixfoldError, UserError
from sixfold.spark.model import (
    FittedModel,
    SixfoldClassificationModel,
    SixfoldRegressionModel,
    Summary,
    json_fields,
    read_weights,
)
from sixfold.spark.params import (
    ColumnParams,
    ScoreParams,
    chosen_settings,
    default_values,
    in_sparks_words,
    set_params,
    settings_as_params,
    with_accessors,
)
from sixfold.spark.persistence import ParamsWriter
from sixfold.spark.session import engine_of, master_of, send_code
from sixfold.spark.table import Written, write_shards
from sixfold.training.config import TrainConfig, configure

if TYPE_CHECKING:
    from typing import Self

    from pyspark.sql import DataFrame

POLICIES = ("error", "skip")


@settings_as_params
class FittingEstimator(
    Estimator,
    ColumnParams,
    HasValidationIndicatorCol,
    HasWeightCol,
    DefaultParamsReadable,
    MLWritable,
):
    """Trains a convolutional network on a DataFrame of images."""

    keepShards: Param[bool] = Param(  # noqa: N815
        Params._dummy(),
        "keepShards",
        "keep the tensor shards of the table, beside the run directory",
        TypeConverters.toBoolean,
    )

    regression = False
    fitted: type[FittedModel] = FittedModel

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(**default_values(), keepShards=False)
        set_params(self, params)

    def setParams(self, **params: Any) -> Self:  # noqa: N802 - Spark's name
        """Set Params by name."""
        set_params(self, params)
        return self

    def setFeaturesCol(self, value: str) -> Self:  # noqa: N802
        """Set `imageCol`, by the name that other estimators have for it."""
        return self.setParams(imageCol=value)

    def write(self) -> ParamsWriter:
        """Writes the Params; see `save`."""
        return ParamsWriter(self)

    def _fit(self, dataset: DataFrame) -> Any:
        try:
            return self._train(dataset)
        except UserError as error:
            raise UserError(in_sparks_words(error.problems)) from None

    def _train(self, dataset: DataFrame) -> Any:
        began = time.monotonic()
        session = dataset.sparkSession
        config = self._checked(master_of(session))
        out = Path(str(config.run.out))
        shards = out.with_name(f"{out.name}.shards")
        send_code(session)
        shutil.rmtree(shards, ignore_errors=True)
        try:
            written = write_shards(
                dataset,
                shards,
                image=self.column("imageCol"),
                label=str(self.getOrDefault("labelCol")),
                validation=self.column("validationIndicatorCol"),
                weight=self.column("weightCol"),
                regression=self.regression,
                resize=config.data.resize,
                skip=self.getOrDefault("handleInvalid") == "skip",
            )
            prepared_s = time.monotonic() - began
            figures = self._run(session, config, written)
        finally:
            if not self.getOrDefault("keepShards"):
                shutil.rmtree(shards, ignore_errors=True)
        weights, card = read_weights(out, trust_model=True)
        figures |= {
            "history": _history(out),
            "classes": list(card.classes),
            "rows": written.rows,
            "skipped": written.bad + written.unlabelled,
            "skipped_unlabelled": written.unlabelled,
            "skipped_unreadable": written.bad,
            "prepare_s": round(prepared_s, 3),
            "path": str(out),
        }
        summary = Summary(json_fields(figures))
        return self._copyValues(self.fitted(weights, card, written.label_values, summary))

    def _checked(self, master: str) -> TrainConfig:
        """The settings of the training.

        Raises:
            UserError: with everything that is wrong with them.
        """
        from sixfold.training.run import training_problems

        chosen = chosen_settings(self)
        if self.regression:
            chosen.setdefault("loss", self.getOrDefault("loss"))
        found: list[str] = []
        if self.getOrDefault("handleInvalid") not in POLICIES:
            found.append(
                f"handleInvalid {self.getOrDefault('handleInvalid')!r}: fit takes error or skip"
            )
        config = configure(**chosen, data="digits", engine="inline")
        found += [p for p in training_problems(config) if "digits" not in p]
        if config.run.out is None and not master.startswith("local"):
            found.append(
                "out: give a run directory that driver and executors share (a path that all hosts "
                f"mount): {master or 'this cluster'} has executors on other hosts"
            )
        if found:
            raise UserError(found)
        if config.run.out is None:
            out = Path(
                "runs", f"{self.uid}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6}"
            )
            config = dataclasses.replace(
                config, run=dataclasses.replace(config.run, out=str(out.absolute()))
            )
        return config

    def _run(self, session: Any, config: TrainConfig, written: Written) -> dict[str, Any]:
        from sixfold.training.run import train

        config = dataclasses.replace(
            config,
            data=dataclasses.replace(
                config.data, data=f"shards:{written.folder}", resize=None, test_split=0.0
            ),
            engine=dataclasses.replace(config.engine, engine="spark"),
        )
        from sixfold.models import source_file

        source = source_file(config.model.model)
        ship = (str(source),) if source else ()
        with engine_of(session, ship) as engine:
            return train(config, engine=engine)


@with_accessors
class SixfoldClassifier(FittingEstimator, ScoreParams):
    """Trains a convolutional network to tell classes of the images of a DataFrame.

    >>> classifier = SixfoldClassifier(model="lenet5", imageCol="image", epochs=2.0, numWorkers=2)
    >>> classifier.getBatchSize(), classifier.getEpochs()
    (64, 2.0)
    """

    fitted = SixfoldClassificationModel


class SixfoldRegressor(FittingEstimator):
    """Trains a convolutional network to tell a number, or several, of the images of a DataFrame.

    >>> SixfoldRegressor(model="lenet5", labelCol="age").getOrDefault("loss")
    'mse'
    """

    regression = True
    fitted = SixfoldRegressionModel

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(loss="mse")
        set_params(self, params)


def _history(out: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that tell of evaluations and of the last step of each epoch."""
    from sixfold.core.run_directory import read_json_lines

    try:
        return list(read_json_lines(out / "metrics.jsonl"))
    except (OSError, SixfoldError):
        return []
