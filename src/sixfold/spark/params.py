"""Params of spark.ml made from Sixfold's settings, under Spark's names.

An option of the command line is a Param in camel case (`--batch-size` is `batchSize`), with the
same help, type and default. The columns have Spark's own Params.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasLabelCol,
    HasPredictionCol,
    HasProbabilityCol,
    HasRawPredictionCol,
)

from sixfold.core.errors import raise_problems
from sixfold.core.settings import hints_of
from sixfold.training.config import TrainConfig

RENAMED = {"workers": "numWorkers"}
LEFT_OUT = {
    *("data", "image_column", "label_column", "weight_column", "test_split", "max_images"),
    *("on_error", "engine", "master", "spark_conf", "trust_model", "overwrite"),
    *("machine", "device", "tf32", "reread"),
}
"""Settings that a table, a session or a Param of Spark's own decides."""

ANOTHER = "have one made for each fit by a star in it (out='runs/photos-*')"

OBJECTS = {"model", "loss", "optimizer", "callback"}
"""Settings that may be the user's own class, function, instance or callable in place of a name."""


def camel(name: str) -> str:
    """The name of a setting among Params.

    >>> camel("batch_size"), camel("workers"), camel("lr")
    ('batchSize', 'numWorkers', 'lr')
    """
    if name in RENAMED:
        return RENAMED[name]
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def settings() -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """The settings that are Params: their fields and types, by name."""
    found = {}
    sections = hints_of(TrainConfig)
    for section in sections:
        hints = hints_of(sections[section])
        for field in dataclasses.fields(sections[section]):
            if field.name not in LEFT_OUT:
                found[field.name] = field, hints[field.name]
    return found


def in_sparks_words(problems: Iterable[str]) -> list[str]:
    """Lines that name options, with the names of Params instead.

    >>> in_sparks_words(["--batch-size 0: must be at least 1"])
    ['batchSize 0: must be at least 1']
    """
    names = {name.rstrip("_").replace("_", "-"): camel(name) for name in settings()}
    names |= {f"{what}-column": f"{what}Col" for what in ("image", "label", "weight")}
    names |= {"validation-column": "validationIndicatorCol", "on-error": "handleInvalid"}
    names["tta"] = "tta"

    def param(found: re.Match[str]) -> str:
        return names.get(found[1], found[0])

    told = (each.replace("replace it with --overwrite", ANOTHER) for each in problems)
    return [re.sub(r"--([a-z][a-z0-9-]*)", param, problem) for problem in told]


def is_own(value: Any) -> bool:
    """Whether a value is an object of the user's rather than a name."""
    return callable(value) or any(hasattr(value, f"on_{when}") for when in ("start", "step", "end"))


def _with_objects(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A converter of names, or of lists of names, that lets the user's own objects through."""

    def converted(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [converted(each) for each in value]
        return value if is_own(value) else TypeConverters.toString(value)

    return (
        converted
        if convert is TypeConverters.toListString
        else lambda value: value if callable(value) else convert(value)
    )


def _converter(hint: Any) -> Callable[[Any], Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is tuple:
        return TypeConverters.toListString
    converters: dict[Any, Callable[[Any], Any]] = {
        bool: TypeConverters.toBoolean,
        int: TypeConverters.toInt,
        float: TypeConverters.toFloat,
        str: _text,
    }
    convert = converters.get(hint, TypeConverters.identity)
    # Spark's own take some of NumPy's numbers only.
    return lambda value: convert(value.item() if isinstance(value, np.generic) else value)


def _text(value: Any) -> str:
    """Text, or a list of it: augment=["crop:4", "flip"]."""
    return TypeConverters.toString(",".join(value) if isinstance(value, list | tuple) else value)


class ColumnParams(HasLabelCol, HasPredictionCol):
    """What an estimator and its model share: columns, and what happens to bad images."""

    imageCol: Param[str] = Param(  # noqa: N815 - Spark's way of writing
        Params._dummy(),
        "imageCol",
        "column of images: encoded bytes, Spark's image struct, vectors, arrays or paths; found by "
        "its name if it is not set. Also set by featuresCol",
        TypeConverters.toString,
    )
    handleInvalid: Param[str] = Param(  # noqa: N815
        Params._dummy(),
        "handleInvalid",
        "what to do with images that cannot be read (in fit also with rows that have no label): "
        "error, skip the row, or keep it (in transform, with null predictions)",
        TypeConverters.toString,
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(
            labelCol="label",
            predictionCol="prediction",
            handleInvalid="error",
        )

    def column(self, name: str) -> str | None:
        """The column that a Param names, or None if it is empty or not set."""
        if not self.isDefined(name):
            return None
        return str(self.getOrDefault(name)) or None


class ScoreParams(HasProbabilityCol, HasRawPredictionCol):
    """Columns of what a classifier says of every class."""

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(probabilityCol="probability", rawPredictionCol="rawPrediction")


def settings_as_params(cls: type[Any]) -> type[Any]:
    """Give a class a Param, a setter and a getter for every setting of a training."""
    for name, (field, hint) in settings().items():
        param = camel(name)
        doc = str(field.metadata.get("doc", ""))
        convert = _converter(hint)
        convert = _with_objects(convert) if name in OBJECTS else convert
        setattr(cls, param, Param(Params._dummy(), param, doc, convert))
    return with_accessors(cls)


def with_accessors(cls: type[Any]) -> type[Any]:
    """Give a class a setter and a getter for every Param that has none."""
    for name in sorted({n for n in dir(cls) if isinstance(getattr(cls, n), Param)}):
        word = name[0].upper() + name[1:]
        if not hasattr(cls, f"set{word}"):
            setattr(cls, f"set{word}", _setter(name))
        if not hasattr(cls, f"get{word}"):
            setattr(cls, f"get{word}", _getter(name))
    return cls


def _setter(name: str) -> Callable[[Any, Any], Any]:
    def set_it(self: Any, value: Any) -> Any:
        return self._set(**{name: value})

    set_it.__name__, set_it.__doc__ = f"set{name[0].upper()}{name[1:]}", f"Set `{name}`."
    return set_it


def _getter(name: str) -> Callable[[Any], Any]:
    def get_it(self: Any) -> Any:
        return self.getOrDefault(name)

    get_it.__name__, get_it.__doc__ = f"get{name[0].upper()}{name[1:]}", f"Value of `{name}`."
    return get_it


def default_values() -> dict[str, Any]:
    """Defaults of the Params of settings; a setting that is not set by default has none."""
    found = {}
    for name, (field, hint) in settings().items():
        if field.default is not None and field.default is not dataclasses.MISSING:
            value = field.default
            found[camel(name)] = _converter(hint)(
                list(value) if isinstance(value, tuple) else value
            )
    return found


def chosen_settings(params: Params) -> dict[str, Any]:
    """What was set, by the settings' names."""
    names = {camel(name): (name, hint) for name, (_, hint) in settings().items()}
    found = {}
    for param, value in params.extractParamMap().items():
        if param.name in names and params.isSet(param):
            name, hint = names[param.name]
            found[name] = tuple(value) if _converter(hint) is TypeConverters.toListString else value
    return found


def set_params(params: Params, given: Mapping[str, Any]) -> None:
    """Set Params by name.

    Raises:
        UserError: with every unknown name and every value of a wrong type.
    """
    import difflib

    found, known = [], {param.name for param in params.params}
    for name, value in given.items():
        if value is None:
            continue
        name = "imageCol" if name == "featuresCol" else name
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            found.append(f"{type(params).__name__} has no Param {name!r}{hint}")
            continue
        try:
            params._set(**{name: value})
        except TypeError as error:
            found.append(f"{name}={value!r}: {error}")
    raise_problems(found)


def refuse_taken(model: ColumnParams, there: Iterable[str]) -> None:
    """Refuse to write a column over another, which Spark does without a word.

    Args:
        model: whose Params name the columns that it adds.
        there: the DataFrame's columns.
    """
    read = ("imageCol", "labelCol", "weightCol", "validationIndicatorCol")
    params = [p.name for p in model.params if p.name.endswith("Col") and p.name not in read]
    named = {param: name for param in params if (name := model.column(param)) is not None}
    taken = {name.lower() for name in there}
    found = [
        f"{param}: the DataFrame has a column {name!r} already: drop that, or give another name"
        for param, name in named.items()
        if name.lower() in taken
    ]
    for name in dict.fromkeys(named.values()):
        if len(same := [param for param in named if named[param] == name]) > 1:
            found.append(f"{' and '.join(same)} are both {name!r}: give each a name of its own")
    raise_problems(found)
