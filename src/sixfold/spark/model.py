"""A fitted network as a spark.ml Model, and as a function for SQL."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml import Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)

from sixfold.core.errors import UserError
from sixfold.core.run_directory import OBJECTS
from sixfold.data.augmentation.views import NONE, parse_views
from sixfold.models.packed import is_packed, packed_path
from sixfold.spark.params import (
    ColumnParams,
    ScoreParams,
    in_sparks_words,
    refuse_taken,
    set_params,
    with_accessors,
)
from sixfold.spark.persistence import Writer, local_path
from sixfold.spark.scoring import Scorer, Weights
from sixfold.spark.session import send_code
from sixfold.spark.table import image_columns

if TYPE_CHECKING:
    from typing import Self

    from pyspark.sql import Column, DataFrame

    from sixfold.training.model_card import ModelCard

CARRIED_BYTES = 2**26
"""Weights up to this size travel with the function; Spark broadcasts it. Larger ones are read from
their path, which all executors must see."""

FIELDS = "prediction double, probability array<double>, rawPrediction array<double>, error string"


class Summary:
    """What `result.json` of the training holds, as attributes; and its history."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"the training has no figure {name!r}: see `fields`")
        return self._fields[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    @property
    def fields(self) -> dict[str, Any]:
        """All figures."""
        return dict(self._fields)

    def __repr__(self) -> str:
        shown = ("weights_sha256", "steps", "rows", "skipped", "validation_accuracy", "wall_s")
        told = ", ".join(f"{n}={self._fields[n]!r}" for n in shown if n in self._fields)
        return f"Summary({told})"


@with_accessors
class FittedModel(Model, ColumnParams, MLWritable, MLReadable["FittedModel"]):
    """A trained network: `transform` adds what it says of each image to a DataFrame."""

    errorCol: Param[str] = Param(  # noqa: N815
        Params._dummy(),
        "errorCol",
        "column for the reason why a row has no prediction (handleInvalid keep); none if empty",
        TypeConverters.toString,
    )

    sparse: Param[str] = Param(
        Params._dummy(),
        "sparse",
        "file of `sixfold sparse` on the driver: a pruned network's layers are run in the forms "
        "that it names; dense if empty",
        TypeConverters.toString,
    )

    tta: Param[str] = Param(
        Params._dummy(),
        "tta",
        "views of each image over which outputs are averaged: flip, shift:PIXELS, or both behind "
        "a comma; none",
        TypeConverters.toString,
    )

    def __init__(
        self,
        weights: Weights | None = None,
        card: ModelCard | None = None,
        label_values: tuple[float, ...] | None = None,
        summary: Summary | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(errorCol="", sparse="", tta=NONE)
        self._weights, self._card = weights, card
        self._label_values, self._summary = label_values, summary

    @classmethod
    def of(cls, path: str | Path, *, trust_model: bool = False, **params: Any) -> Self:
        """The model of a run directory, a `model.safetensors` or a `model.sixz`.

        Args:
            path: where it is, on the driver.
            trust_model: whether the file may name any code for its network.
            params: Params of the model.
        """
        weights, card = read_weights(path, trust_model=trust_model)
        model = cls(weights, card)
        set_params(model, params)
        return model

    @property
    def card(self) -> ModelCard:
        """What the network was trained on."""
        assert self._card is not None, "made by fit, load or of"
        return self._card

    @property
    def summary(self) -> Summary:
        """Figures of the training."""
        if self._summary is None:
            raise UserError("this model was not made by fit: it has no summary")
        return self._summary

    @property
    def hasSummary(self) -> bool:  # noqa: N802
        """Whether the figures of the training are known."""
        return self._summary is not None

    def network(self) -> Any:
        """The network as `torch.nn.Module`: raw images in, scores out."""
        from sixfold.spark.scoring import classifier

        assert self._weights is not None, "made by fit, load or of"
        return classifier(dataclasses.replace(self._weights, tta=self._views()))

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.sql import functions

        policy = self.getOrDefault("handleInvalid")
        if policy not in ("error", "skip", "keep"):
            raise UserError(f"handleInvalid {policy!r}: expected error, skip or keep")
        made = f"sixfold_{self.uid}"
        outputs = self._outputs(made)
        if (reason := self.column("errorCol")) is not None:
            outputs[reason] = functions.col(f"{made}.error")
        refuse_taken(self, dataset.columns)
        try:
            out = dataset.withColumn(made, self._scores(dataset))
        except UserError as wrong:
            raise UserError(in_sparks_words(wrong.problems)) from None
        if policy == "skip":
            out = out.where(functions.col(f"{made}.error").isNull())
        for name, column in outputs.items():
            out = out.withColumn(name, column)
        return out.drop(made)

    def _views(self) -> str:
        """The text of `tta`; a `UserError` if it names no views."""
        text = str(self.getOrDefault("tta"))
        parse_views(text)
        return text

    def _outputs(self, made: str) -> dict[str, Column]:
        """The columns that are added, from the struct of that name."""
        raise NotImplementedError

    def _predictions(self) -> tuple[float, ...]:
        return self._label_values or tuple(float(n) for n in range(len(self.card.classes)))

    def _scores(self, dataset: DataFrame) -> Column:
        """The column of what the network says of every row."""
        from pyspark.ml.functions import vector_to_array
        from pyspark.ml.linalg import VectorUDT
        from pyspark.sql import functions

        from sixfold.prediction.sparse.choose import load_choice

        assert self._weights is not None, "made by fit, load or of"
        column, _ = image_columns(dataset, self.column("imageCol"), self.card.pixel_range or None)
        given: Any = dataset[column.name]
        if column.beside:
            given = functions.struct(*[dataset[name] for name in (column.name, *column.beside)])
        elif isinstance(dataset.schema[column.name].dataType, VectorUDT):
            # Spark's function takes no null.
            given = functions.when(given.isNotNull(), vector_to_array(given))
        forms = None
        if (file := self.getOrDefault("sparse")) != "":
            forms = tuple(load_choice(Path(file)).items())
        weights = dataclasses.replace(self._weights, sparse=forms, tta=self._views())
        scorer = Scorer(
            weights=_sent(dataset.sparkSession, weights),
            pixel_range=column.numbers,
            keep=self.getOrDefault("handleInvalid") != "error",
            label_values=self._predictions(),
            targets=self.card.kind,
        )
        # Else Spark may evaluate it again for every column that is taken from it.
        return _udf(scorer).asNondeterministic()(given)

    def write(self) -> MLWriter:
        """Writes Params, weights and card; see `save`."""
        return _ModelWriter(self)

    def save(self, path: str) -> None:
        """Write the model: Params as Spark does, and `model.safetensors` (or `model.sixz`)."""
        self.write().save(path)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Reads what `write` has written."""
        return _ModelReader(cls)

    @classmethod
    def load(cls, path: str) -> Self:
        """The model at a path."""
        model: Self = cls.read().load(path)
        return model


@with_accessors
class SixfoldClassificationModel(FittedModel, ScoreParams):
    """A trained classifier: adds prediction, probability and raw scores to a DataFrame.

    `prediction` is the label's number where labels were numbers, else the place of its class in
    `classes`. Made by `SixfoldClassifier.fit`, by `load`, or from a run or weights file by `of`.
    """

    predictedLabelCol: Param[str] = Param(  # noqa: N815
        Params._dummy(),
        "predictedLabelCol",
        "column for the predicted class's name; none if empty",
        TypeConverters.toString,
    )

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._setDefault(predictedLabelCol="")

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of `probability`."""
        return list(self.card.classes)

    @property
    def numClasses(self) -> int:  # noqa: N802
        """How many classes there are."""
        return len(self.card.classes)

    def _outputs(self, made: str) -> dict[str, Column]:
        from pyspark.ml.functions import array_to_vector
        from pyspark.sql import functions

        found: dict[str, Any] = {}
        for param, part in (
            ("rawPredictionCol", "rawPrediction"),
            ("probabilityCol", "probability"),
        ):
            if (name := self.column(param)) is not None:
                # array_to_vector takes no null.
                values = functions.coalesce(functions.col(f"{made}.{part}"), functions.array())
                found[name] = functions.when(
                    functions.col(f"{made}.error").isNull(), array_to_vector(values)
                )
        prediction = functions.col(f"{made}.prediction")
        if (name := self.column("predictionCol")) is not None:
            found[name] = prediction
        if (name := self.column("predictedLabelCol")) is not None:
            named = functions.lit(None).cast("string")
            for value, text in zip(self._predictions(), self.classes, strict=True):
                named = functions.when(prediction == value, text).otherwise(named)
            found[name] = named
        return found


class SixfoldRegressionModel(FittedModel):
    """A trained regressor: adds the predicted number to a DataFrame, or a vector of several."""

    def _outputs(self, made: str) -> dict[str, Column]:
        from pyspark.ml.functions import array_to_vector
        from pyspark.sql import functions

        name = self.column("predictionCol")
        if name is None:
            return {}
        if len(self.card.classes) == 1:
            return {name: functions.col(f"{made}.prediction")}
        values = functions.coalesce(functions.col(f"{made}.rawPrediction"), functions.array())
        error = functions.col(f"{made}.error")
        return {name: functions.when(error.isNull(), array_to_vector(values))}


def _udf(scorer: Scorer) -> Any:
    from collections.abc import Iterator

    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import functions

    def score(batches: Any) -> Any:
        return scorer(batches)

    def score_frames(batches: Any) -> Any:
        return scorer.frames(batches)

    # Spark reads the kind of function off its annotations.
    if not hasattr(functions, "arrow_udf"):  # before Spark 4.1
        kind = {"batches": Iterator[pd.Series], "return": Iterator[pd.DataFrame]}
        score_frames.__annotations__ = kind
        return functions.pandas_udf(score_frames, FIELDS)
    score.__annotations__ = {"batches": Iterator[pa.Array], "return": Iterator[pa.Array]}
    return functions.arrow_udf(score, FIELDS)


def predict_udf(path: str | Path, *, trust_model: bool = False, tta: str = NONE) -> Any:
    """A function for SQL and DataFrames that scores images with a trained network.

    Images may be encoded bytes, Spark's image struct, arrays, vectors, or paths as text.

    Args:
        path: a run directory, `model.safetensors` or `model.sixz`.
        trust_model: whether the file may name any code for its network.
        tta: views of each image over which outputs are averaged: "flip", "flip,shift:1".

    Returns:
        A UDF of whole batches from an image to a struct of prediction, probability, rawPrediction,
        error and null scores where an image cannot be used:
        `spark.udf.register("score", predict_udf(run))`.
    """
    from pyspark.sql import SparkSession

    parse_views(tta)
    weights, card = read_weights(path, trust_model=trust_model)
    weights = dataclasses.replace(weights, tta=tta)
    session = SparkSession.getActiveSession()
    if session is None:
        raise UserError("predict_udf needs an active Spark session: start one first")
    scorer = Scorer(
        weights=_sent(session, weights),
        pixel_range=card.pixel_range or "0-255",
        keep=True,
        label_values=tuple(float(number) for number in range(len(card.classes))),
        targets=card.kind,
    )
    return _udf(scorer)


def _sent(session: Any, weights: Weights) -> Weights:
    """The network, whose code has been sent to the executors."""
    from sixfold.models.project import variables_read_by

    variables = tuple(variables_read_by([weights.trusted]).items())
    archives = send_code(session, weights.trusted)
    return dataclasses.replace(weights, archives=archives, variables=variables)


def read_weights(path: str | Path, *, trust_model: bool = False) -> tuple[Weights, ModelCard]:
    """A weights file, or that of a run, as it travels to executors.

    Raises:
        UserError: if there is none, it is damaged, or it names a stranger's code.
    """
    from sixfold.compression.loading import read_card
    from sixfold.training.model_card import weights_file

    file = weights_file(path)
    card = read_card(file, trust=trust_model)
    data = file.read_bytes()
    weights = Weights(
        data if len(data) <= CARRIED_BYTES else None,
        str(file),
        hashlib.sha256(data).hexdigest(),
        card.model,
        packed_path(card.model).read_bytes() if is_packed(card.model) else None,
    )
    return weights, card


class _ModelWriter(Writer):
    def __init__(self, model: FittedModel) -> None:
        super().__init__()
        self._model = model

    def saveImpl(self, path: str) -> None:  # noqa: N802 - Spark's name
        model, weights = self._model, self._model._weights
        assert weights is not None, "made by fit, load or of"
        data = weights.data if weights.data is not None else Path(weights.path).read_bytes()
        extra = {
            "sixfold": {
                "weights": Path(weights.path).name,
                "sha256": weights.sha256,
                "trusted": weights.trusted,
                "label_values": model._label_values,
                "summary": None if model._summary is None else model._summary.fields,
            }
        }
        DefaultParamsWriter.saveMetadata(model, path, self.sparkSession, extraMetadata=extra)
        import fsspec

        files, place = fsspec.core.url_to_fs(_url(path, "metadata"))
        if not files.exists(place):
            raise UserError(
                f"Spark has written {path} to a place where this process does not see it (its own "
                "folder, or another file system): save to a whole path, such as file:///shared/..."
            )
        with fsspec.open(_url(path, Path(weights.path).name), "wb") as file:
            file.write(data)
        if weights.packed is not None:
            name = Path(OBJECTS, packed_path(weights.trusted).name)
            with fsspec.open(_url(path, str(name)), "wb", auto_mkdir=True) as file:
                file.write(weights.packed)


class _ModelReader(MLReader[FittedModel]):
    def __init__(self, cls: type[FittedModel]) -> None:
        super().__init__()
        self._cls = cls

    def load(self, path: str) -> FittedModel:
        import fsspec

        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        kept = metadata["sixfold"]
        with fsspec.open(_url(path, kept["weights"]), "rb") as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != kept["sha256"]:
            raise UserError(f"{path}: {kept['weights']} is damaged: save the model again")
        from sixfold.spark.session import scratch

        folder = scratch() / kept["sha256"][:16]
        folder.mkdir(parents=True, exist_ok=True)
        packed = None
        if is_packed(kept["trusted"]):
            name = Path(OBJECTS, packed_path(kept["trusted"]).name)
            with fsspec.open(_url(path, str(name)), "rb") as file:
                packed = file.read()
        saved = Weights(data, kept["weights"], kept["sha256"], kept["trusted"], packed)
        local, _ = saved.write(folder)
        # Params of a model may be anybody's; the network that the weights name is looked at.
        weights, card = read_weights(local)
        values = kept["label_values"]
        model = self._cls(
            weights,
            card,
            None if values is None else tuple(values),
            None if kept["summary"] is None else Summary(kept["summary"]),
        )
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model


def _url(path: str, name: str) -> str:
    return f"{local_path(path)}/{name}"


def json_fields(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures as JSON keeps them, so that a model that was saved has the same summary."""
    fields: dict[str, Any] = json.loads(json.dumps(figures))
    return fields
