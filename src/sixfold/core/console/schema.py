"""JSON Schema of a command's settings, with which editors complete and check its file."""

import dataclasses
import typing
from typing import Any

from sixfold.core.settings import hints_of


def json_schema(tree: type[Any]) -> dict[str, Any]:
    """The schema of a file for ``--config``: one table a section."""
    # Imported here: it takes as long as all that `sixfold train --help` imports.
    from pydantic import create_model

    sections = {name: (_section(kind), ...) for name, kind in hints_of(tree).items()}
    fields: dict[str, Any] = {name: (kind | None, None) for name, (kind, _) in sections.items()}
    model = create_model(tree.__name__, __config__=_strict(), __doc__=tree.__doc__, **fields)
    schema: dict[str, Any] = model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _section(section: type[Any]) -> Any:
    from pydantic import Field, create_model

    hints, fields = hints_of(section), dict[str, Any]()
    for field in dataclasses.fields(section):
        rules, hint = field.metadata, hints[field.name]
        if rules["choices"]:
            hint = typing.Literal[rules["choices"]]
        about = Field(
            default=field.default,
            description=rules["doc"],
            alias=field.name.rstrip("_"),
            **rules["bounds"],
        )
        fields[field.name] = (hint, about)
    return create_model(section.__name__, __config__=_strict(), __doc__=section.__doc__, **fields)


def _strict() -> Any:
    from pydantic import ConfigDict

    # `model_args` is a setting of ours, not one of pydantic's methods.
    return ConfigDict(extra="forbid", protected_namespaces=())
