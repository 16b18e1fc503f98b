"""Sixfold's training as a spark.ml Estimator.

Prediction, columns and Params follow Spark's conventions. The table's images are written to tensor
shards by the executors (`sixfold.spark.table`), then ranks train on them in the session's executors
as `sixfold train --data shards:DIR` would, to the same bits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml import Estimator
from pyspark.ml.base import _FitMultipleIterator
from pyspark.ml.param.shared import HasValidationIndicatorCol, HasWeightCol
from pyspark.ml.util import DefaultParamsReadable, MLWritable

from sixfold.core.errors import SixfoldError, UserError
from sixfold.core.run_directory import as_json
from sixfold.data.config import HANDED_OVER
from sixfold.data.targets import REGRESSION
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
from sixfold.spark.preparation import TableSettings, Written, root_of, write_shards
from sixfold.spark.session import engine_of, master_of
from sixfold.training.config import TrainConfig, configure
from sixfold.training.losses.registry import with_target

if TYPE_CHECKING:
    from typing import Self

    from pyspark.sql import DataFrame

POLICIES = ("error", "skip")

Prepare = Callable[[Mapping[str, Any], Path, TableSettings], Written]


class _Once:
    """`write_shards` for one table, which the fits of a search share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[tuple[Path, TableSettings], Written] = {}

    def __call__(self, frames: Mapping[str, Any], root: Path, settings: TableSettings) -> Written:
        with self._lock:  # fits may run in threads
            if (root, settings) not in self._written:
                self._written[root, settings] = write_shards(frames, root, settings)
            return self._written[root, settings]


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

    regression = False
    fitted: type[FittedModel] = FittedModel

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(**default_values())
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

    def fitMultiple(  # noqa: N802 - Spark's name
        self, dataset: DataFrame, paramMaps: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Models for several maps of Params, the table prepared once for all."""
        estimator, prepare = self.copy(), _Once()

        def fit_one(index: int) -> Any:
            return estimator.copy(paramMaps[index])._fit(dataset, prepare)

        return _FitMultipleIterator(fit_one, len(paramMaps))

    def _fit(self, dataset: DataFrame, prepare: Prepare = write_shards) -> Any:
        try:
            return self._train(dataset, prepare)
        except UserError as error:
            raise UserError(in_sparks_words(error.problems)) from None

    def _train(self, dataset: DataFrame, prepare: Prepare) -> Any:
        began = time.monotonic()
        session = dataset.sparkSession
        config = self._checked(master_of(session))
        settings = TableSettings(
            image=self.column("imageCol"),
            label=str(self.getOrDefault("labelCol")),
            validation=self.column("validationIndicatorCol"),
            weight=self.column("weightCol"),
            kind=REGRESSION if self.regression else with_target(config.data, config.loss).target,
            pixel_range=config.data.pixel_range,
            resize=config.data.resize,
            skip=self.getOrDefault("handleInvalid") == "skip",
        )
        written = prepare({"train": dataset}, root_of(session, config.run.out), settings)
        config = _placed(config, written.data)
        prepared_s = time.monotonic() - began
        figures = self._run(session, config, written)
        out = Path(str(config.run.out))
        weights, card = read_weights(out, trust_model=True)
        figures |= {
            "history": _history(out),
            "classes": list(card.classes),
            "rows": written.rows,
            "skipped": written.bad + written.unlabelled,
            "skipped_unlabelled": written.unlabelled,
            "skipped_unreadable": written.bad,
            "decoded": written.decoded,
            "prepare_s": round(prepared_s, 3),
            "data": written.data,
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
        config = configure(**chosen, data=HANDED_OVER, engine="spark")
        found += training_problems(config)
        if config.run.out is None and not master.startswith("local"):
            found.append(
                "out: give a run directory that driver and executors share (a path that all hosts "
                f"mount): {master or 'this cluster'} has executors on other hosts"
            )
        if found:
            raise UserError(found)
        if config.run.out is None:
            name = f"{self.uid}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6}"
            out = str(Path("runs", name).absolute())
            config = dataclasses.replace(config, run=dataclasses.replace(config.run, out=out))
        return config

    def _run(self, session: Any, config: TrainConfig, written: Written) -> dict[str, Any]:
        from sixfold.training.run import train

        config = dataclasses.replace(
            config,
            data=dataclasses.replace(
                config.data, data=written.data, resize=None, pixel_range=None, test_split=0.0
            ),
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


def _placed(config: TrainConfig, data: str) -> TrainConfig:
    """The settings with a directory of its own for each training, where `out` has a star."""
    told = json.dumps([as_json(config), data], sort_keys=True)
    name = hashlib.sha256(told.encode()).hexdigest()[:12]
    out = str(Path(str(config.run.out).replace("*", name)).absolute())
    return dataclasses.replace(config, run=dataclasses.replace(config.run, out=out))


def _history(out: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that tell of evaluations and of the last step of each epoch."""
    from sixfold.core.run_directory import read_json_lines

    try:
        return list(read_json_lines(out / "metrics.jsonl"))
    except (OSError, SixfoldError):
        return []
