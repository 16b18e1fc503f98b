"""Sixfold's training as a spark.ml Estimator.

Prediction, columns and Params follow Spark's conventions. The table's images are written to tensor
shards by the executors (`sixfold.spark.table`), then ranks train on them in the session's executors
as `sixfold train --data shards:DIR` would, to the same bits.
"""

from __future__ import annotations

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

from sixfold.core.errors import SixfoldError, UserError, raise_problems
from sixfold.core.object_store import is_url
from sixfold.core.run_directory import as_json
from sixfold.core.settings import build_tree
from sixfold.data.config import HANDED_OVER
from sixfold.data.targets import REGRESSION
from sixfold.models.objects import describe
from sixfold.spark.model import (
    FittedModel,
    SixfoldClassificationModel,
    SixfoldRegressionModel,
    Summary,
    json_fields,
    read_weights,
)
from sixfold.spark.params import (
    OBJECTS,
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
from sixfold.spark.table import refuse_other_tables
from sixfold.training.config import TrainConfig
from sixfold.training.inputs import own_code
from sixfold.training.losses.registry import with_target
from sixfold.training.objects import packed, problems_without, with_values

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
        refuse_other_tables(dataset)
        session = dataset.sparkSession
        config, objects = self._checked(master_of(session))
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
        config = _placed(config, objects, written.data)
        prepared_s = time.monotonic() - began
        figures = _run(session, config, objects)
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

    def _checked(self, master: str) -> tuple[TrainConfig, dict[str, Any]]:
        """The settings of the training, and the user's own objects by their names.

        Raises:
            UserError: with everything that is wrong with them.
        """
        chosen = chosen_settings(self)
        objects = {
            name: chosen.pop(name) for name in OBJECTS & chosen.keys() if callable(chosen[name])
        }
        if not all(isinstance(each, str) for each in chosen.get("callback", ())):
            objects["callback"] = chosen.pop("callback")
        if self.regression:
            chosen.setdefault("loss", self.getOrDefault("loss"))
        found: list[str] = []
        if self.getOrDefault("handleInvalid") not in POLICIES:
            found.append(
                f"handleInvalid {self.getOrDefault('handleInvalid')!r}: fit takes error or skip"
            )
        config = build_tree(TrainConfig, {**chosen, "data": HANDED_OVER, "engine": "spark"})
        found += problems_without(config, objects)
        if is_url(config.run.out or ""):
            found.append(
                f"out {config.run.out}: give a path that driver and executors mount; a run at a "
                "URL is trained by sixfold.train or `sixfold train --engine spark`"
            )
        if config.run.out is None and not master.startswith("local"):
            found.append(
                "out: give a run directory that driver and executors share (a path that all hosts "
                f"mount): {master or 'this cluster'} has executors on other hosts"
            )
        raise_problems(found)
        if config.run.out is None:
            name = f"{self.uid}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6}"
            out = str(Path("runs", name).absolute())
            config = with_values(config, {"out": out})
        return config, objects


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


def _placed(config: TrainConfig, objects: Mapping[str, Any], data: str) -> TrainConfig:
    """The settings with their data, and a directory of its own where `out` has a star."""
    named = [describe(thing, what)[0] for what, thing in objects.items() if what != "callback"]
    anew = as_json(with_values(config, {"resume": False}))  # a resumed run is the same run
    told = json.dumps([anew, named, data], sort_keys=True)
    name = hashlib.sha256(told.encode()).hexdigest()[:12]
    out = str(Path(str(config.run.out).replace("*", name)).absolute())
    settled = {"data": data, "resize": None, "pixel_range": None, "test_split": 0.0, "out": out}
    return with_values(config, settled)


def _run(session: Any, config: TrainConfig, objects: dict[str, Any]) -> dict[str, Any]:
    """Train in the session's executors, to which the user's own code travels."""
    from sixfold.perf.plan.automatic import choose
    from sixfold.training.run import train

    callbacks = objects.pop("callback", ())
    with (
        packed(config, objects, callbacks) as named,
        engine_of(session, (named.model.model, *own_code(named))) as engine,
    ):
        return train(named, engine=engine, planner=choose)


def _history(out: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that tell of evaluations and of the last step of each epoch."""
    from sixfold.core.run_directory import read_json_lines

    try:
        return list(read_json_lines(out / "metrics.jsonl"))
    except (OSError, SixfoldError):
        return []
