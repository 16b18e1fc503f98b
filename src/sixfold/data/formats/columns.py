"""Which columns of a table are the images and the labels: by their names and types, or as asked."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError
from sixfold.data.manifest import shortened

if TYPE_CHECKING:
    from sixfold.data.formats.table_files import TableFile

IMAGE_NAMES = (
    *("image", "img", "images", "pixels", "pixel_values", "picture", "photo"),
    *("image_bytes", "jpeg", "jpg", "png", "bytes", "content", "data", "features", "vector", "x"),
)
LABEL_NAMES = (
    *("label", "class", "target", "labels", "category", "class_id", "class_name", "classname"),
    *("label_name", "fine_label", "labelindex", "label_index", "indexedlabel", "indexed_label"),
    *("label_idx", "labelidx", "categoryindex", "category_index", "y"),
)
SPARK_IMAGE = {"height", "width", "nChannels", "data"}
"""Fields of what ``spark.read.format("image")`` makes, besides origin and mode."""

EXPECTED = {
    "image": "bytes of pictures, a struct that holds them, Spark's images or vectors, or numbers",
    "label": "whole numbers, text or booleans",
    "weight": "numbers",
}


def image_form(kind: Any) -> str | None:
    """How images lie in a column of this type; None if it can hold none.

    "pictures" (encoded bytes, also as struct), "Spark image", "integers", "floats", or "null".
    """
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return image_form(kind.value_type)
    if types.is_null(kind):
        return "null"
    if is_bytes(kind):
        return "pictures"
    if types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        if fields.keys() >= SPARK_IMAGE:
            return "Spark image"
        if "bytes" in fields and (is_bytes(fields["bytes"]) or types.is_null(fields["bytes"])):
            return "pictures"
        vector = {"type", "size", "indices", "values"} <= fields.keys()
        return "floats" if vector and types.is_floating(innermost(fields["values"])) else None
    if types.is_nested(kind) or getattr(kind, "extension_name", "") == "arrow.fixed_shape_tensor":
        inner = innermost(kind)
        if types.is_integer(inner):
            return "integers"
        return "floats" if types.is_floating(inner) else None
    return None


def is_bytes(kind: Any) -> bool:
    """Whether a type is binary, of whatever width of offsets."""
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def is_text(kind: Any) -> bool:
    """Whether a type is text, of whatever width of offsets."""
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def innermost(kind: Any) -> Any:
    """Type of the values of nested lists or of a tensor."""
    import pyarrow.types as types

    while hasattr(kind, "value_type") and not types.is_map(kind):
        kind = kind.value_type
    return kind


def label_form(kind: Any) -> str | None:
    """What labels a column of this type holds: "numbers", "text", "booleans" or "null"."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return label_form(kind.value_type)
    forms = {
        "null": types.is_null(kind),
        "booleans": types.is_boolean(kind),
        "numbers": types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind),
        "text": is_text(kind) or is_bytes(kind),
    }
    return next((form for form, fits in forms.items() if fits), None)


def weight_form(kind: Any) -> str | None:
    """The same of weights, which are numbers."""
    form = label_form(kind)
    return form if form in ("numbers", "null") else None


FORMS = {"image": image_form, "label": label_form, "weight": weight_form}


def choose(path: str, files: Sequence[TableFile], what: str, asked: str | None) -> str | None:
    """Name of the column that is asked for, or of the one that best fits; None if none does."""
    columns = {name: kind for file in reversed(files) for name, kind in file.columns.items()}
    if asked is not None:
        if asked not in columns:
            raise UserError(no_such_column(f"--{what}-column {asked!r}: {path}", asked, columns))
        _check(files, what, asked)
        return asked
    for wanted in IMAGE_NAMES if what == "image" else LABEL_NAMES:
        for name in columns:
            if name.lower() == wanted and _fits(files, what, name):
                _check(files, what, name)
                return name
    return None


def no_column(path: str, files: Sequence[TableFile], what: str) -> UserError:
    """The error for a table in which no column looks like images or labels."""
    columns = {name: kind for file in reversed(files) for name, kind in file.columns.items()}
    names = IMAGE_NAMES if what == "image" else LABEL_NAMES
    hint = " (`sixfold predict` needs no labels)" if what == "label" else ""
    return UserError(
        f"{path}: no {what} column: expected one called {', '.join(names[:6])} or so, of a fitting "
        f"type; there are {describe(columns)}: give --{what}-column NAME{hint}"
    )


def no_such_column(where: str, name: str, columns: dict[str, Any]) -> str:
    """The line for a column that is not there."""
    near = difflib.get_close_matches(name, columns, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{where} has no such column: {hint}there are {describe(columns)}"


def _fits(files: Sequence[TableFile], what: str, name: str) -> bool:
    forms = {FORMS[what](file.columns[name]) for file in files if name in file.columns}
    return bool(forms - {None, "null"}) or (what == "label" and "null" in forms)


def _check(files: Sequence[TableFile], what: str, name: str) -> None:
    """Refuse files in which the column is of a type that cannot be used together with others."""
    there = [file for file in files if name in file.columns]
    forms = [FORMS[what](file.columns[name]) for file in there]
    # The first one that is not all null sets the example.
    place = next((number for number, form in enumerate(forms) if form != "null"), 0)
    first, form = there[place], forms[place]
    if form is None:
        raise UserError(
            f"{first.path}: column {name!r} is {first.columns[name]}: expected {EXPECTED[what]}"
        )
    problems = [
        f"{file.path}: column {name!r} is {file.columns[name]}, but in {first.path} it is "
        f"{first.columns[name]}: write it with one type"
        for file, other in zip(there, forms, strict=True)
        if other not in (form, "null")
    ]
    if problems:
        raise UserError(shortened(problems))


def describe(columns: dict[str, Any]) -> str:
    """Columns with their types, the first twenty."""
    shown = [f"{name} ({kind})" for name, kind in list(columns.items())[:20]]
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    return (", ".join(shown) or "none") + more
