"""The configuration as a table: what was set, what differs from the default, what must not show."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sixfold.core.html.json_lines import label
from sixfold.core.naming import flag_of

_SECRET = re.compile(r"secret|passw|token|credential|access[._-]?key|private[._-]?key", re.I)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
HIDDEN = "(hidden)"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting, as the page shows it."""

    name: str  # as on the command line
    value: str
    changed: bool  # whether it differs from the default
    default: str
    doc: str


def setting_sections(
    config: Mapping[str, Mapping[str, Any]], tree: type[Any]
) -> list[tuple[str, list[Setting]]]:
    """The settings of a `config.json` by section, in the order of the class `tree`."""
    known = {
        section.name: {field.name: field for field in dataclasses.fields(section.default)}
        for section in dataclasses.fields(tree)
        if dataclasses.is_dataclass(section.default)
    }
    names = [name for name in known if name in config] + [n for n in config if n not in known]
    return [
        (name, [_setting(*one, known.get(name, {}).get(one[0])) for one in config[name].items()])
        for name in names
        if config[name]
    ]


def _setting(name: str, value: Any, field: dataclasses.Field[Any] | None) -> Setting:
    default = None if field is None else field.default
    return Setting(
        name=flag_of(name),
        value=show(value),
        # Through JSON, because a tuple comes back as a list.
        changed=json.loads(json.dumps(default)) != value,
        default=show(default),
        doc="" if field is None else str(field.metadata.get("doc", "")),
    )


def show(value: Any) -> str:
    """A setting's value as text, with passwords and the like left out.

    >>> show(None), show(True), show(["spark.ui.port=1", "spark.ssl.keyPassword=abc"])
    ('not set', 'true', 'spark.ui.port=1, spark.ssl.keyPassword=(hidden)')
    >>> show("s3://me:secret@host/data")
    's3://(hidden)@host/data'
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(show, value)) or "none"
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    text = _USER_INFO.sub(f"{HIDDEN}@", label(value))
    name, equals, _ = text.partition("=")
    return f"{name}={HIDDEN}" if equals and _SECRET.search(name) else text
