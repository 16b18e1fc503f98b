"""What all classes of settings share: documented fields whose values are checked when they are set.

So a value of a wrong type is refused wherever it comes from: the command line, a file, the
environment or Python. What can be read as the right type is, as on the command line.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json
from sixfold.core.naming import option_of
from sixfold.core.values import read_value

Tree = TypeVar("Tree")

EITHER = (("epochs", "steps"), ("micro_batch", "tuning"))
"""Settings of which each takes the other's place."""


def option(default: Any, doc: str, *, choices: tuple[str, ...] = (), form: str = "") -> Any:
    """A field with its help text.

    Args:
        default: value when nothing else says so.
        doc: one line that the help shows.
        choices: the values allowed, if they are few.
        form: what the help writes for a value; its type if empty.
    """
    metadata = {"doc": doc, "choices": choices, "form": form}
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """A section of settings, or a tree of sections: a frozen dataclass with checked values.

    Raises:
        UserError: with every value of a wrong type.
    """

    def __post_init__(self) -> None:
        found = []
        for name, hint in hints_of(type(self)).items():
            value = getattr(self, name)
            try:
                read = _checked(value, hint)
            except ValueError as error:
                found.append(f"{name}={value!r}: expected {error}")
                continue
            if read is not value:
                object.__setattr__(self, name, read)
        if found:
            raise UserError(found)

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:  # noqa: ARG002
        """Why settings that a file of a run gave, not the user, must not be used; one line each.

        Args:
            taken: names of settings that the file gave.
            file: the run's `config.json`, which may be a stranger's.
        """
        return []

    def quick_problems(self) -> list[str]:
        """What is wrong at a glance, found without importing torch; one line each."""
        parts = [getattr(self, name) for name in hints_of(type(self))]
        return [
            line for part in parts if isinstance(part, Settings) for line in part.quick_problems()
        ]


def hints_of(section: type[Any]) -> dict[str, Any]:
    """Names and types of a class's fields."""
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def _checked(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, typing.cast(type[Any], hint)):
            raise ValueError(f"a {getattr(hint, '__name__', hint)}")
        return value
    if value is None and type(None) in typing.get_args(hint):
        return None
    return read_value(value, hint)


def build_tree(tree: type[Tree], settings: Mapping[str, Any]) -> Tree:
    """A tree of settings from plain names; a run that is resumed has its own where none is given.

    Raises:
        UserError: with every unknown name and every value of a wrong type.
    """
    left, found = dict(settings), list[str]()
    chosen: dict[str, dict[str, Any]] = {}
    for name, section in hints_of(tree).items():
        chosen[name] = {key: left.pop(key) for key in hints_of(section) if key in left}
    known = {key for section in hints_of(tree).values() for key in hints_of(section)}
    for name in sorted(left):
        same = option_of(name, (key.replace("_", "-") for key in known))
        near = [same.replace("-", "_")] if same else get_close_matches(name, known, n=2)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        found.append(f"there is no setting {name!r}{hint}")
    sections = {}
    for name in hints_of(tree):
        try:
            sections[name] = section_with_run(tree, chosen, name)
        except UserError as error:
            found += error.problems
    if found:
        raise UserError(found)
    return tree(**sections)


def section_with_run(tree: type[Any], chosen: Mapping[str, Mapping[str, Any]], section: str) -> Any:
    """A section of settings; what was not given is taken from the run, if one is resumed.

    Args:
        tree: the class of the settings.
        chosen: what was given, by section and name.
        section: which section.

    Raises:
        UserError: with every value of a wrong type, or that must not be taken from a run.
    """
    make, given = hints_of(tree)[section], chosen[section]
    place = next((c for c in chosen.values() if c.get("resume") and c.get("out")), None)
    if place is None:
        return make(**given)
    file = Path(str(place["out"])).expanduser() / "config.json"
    try:
        kept = parse_json(file.read_text(encoding="utf-8"))[section]
    except (OSError, ValueError, LookupError, TypeError):
        kept = None
    if not isinstance(kept, dict):
        return make(**given)
    replaced = {b for pair in EITHER for a, b in (pair, pair[::-1]) if a in given}
    skipped = {*given, *replaced, "resume", "overwrite", "out", "trust_model"}
    fields: Iterable[str] = hints_of(make)
    taken = {name: kept[name] for name in fields if name in kept and name not in skipped}
    made = make(**given, **taken)
    is_trusted = any(part.get("trust_model") for part in chosen.values())
    if not is_trusted and (foreign := made.origin_problems(taken, file)):
        raise UserError(foreign)
    return made
