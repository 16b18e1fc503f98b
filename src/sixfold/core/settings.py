"""What all classes of settings share: fields that declare their help, choices and bounds.

A value of a wrong type is refused when it is set, wherever it comes from. Choices, bounds and what
settings have to do with each other are checked together by `Settings.problems`.
"""

import dataclasses
import math
import operator
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from sixfold.core.checks import may_exist, unknown
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.files import parse_json
from sixfold.core.naming import flag_of, instead_of, option_of
from sixfold.core.run_directory import found_here
from sixfold.core.values import read_value

Tree = TypeVar("Tree", bound="Settings")
EITHER = (("epochs", "steps"), ("micro_batch", "tuning"))
"""Settings of which each takes the other's place."""


_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}


def option(
    default: Any, doc: str, *, choices: tuple[str, ...] = (), form: str = "", **bounds: float
) -> Any:
    """A field with its help text and its rules.

    `form` is what the help writes for a value, instead of its type. `bounds` of a number are ge,
    gt, le, lt, as in pydantic; a number with bounds is finite.

    >>> option(0.01, "learning rate", ge=0).metadata["bounds"]
    {'ge': 0}
    """
    assert bounds.keys() <= _BOUNDS.keys(), bounds
    metadata = {"doc": doc, "choices": choices, "form": form, "bounds": bounds}
    return dataclasses.field(default=default, metadata=metadata)


def same(section: type[Any], name: str) -> Any:
    """A field declared as in another section."""
    field = next(found for found in dataclasses.fields(section) if found.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


class Settings:
    """A section of settings, or a tree of sections: a frozen dataclass with checked values.

    Every value of a wrong type is refused at once, by a `UserError`.
    """

    def __post_init__(self) -> None:
        found = []
        for name, hint in hints_of(type(self)).items():
            value = getattr(self, name)
            try:
                read = _checked(value, hint)
            except ValueError as error:
                shown = _short(value)
                found.append(f"{name}={shown}: expected {error}{self._meaning(name, error, value)}")
                continue
            if read is not value:
                object.__setattr__(self, name, read)
        raise_problems(found)

    def _meaning(self, name: str, error: ValueError, value: Any) -> str:
        """What a setting is for, where a value shows that this is not known."""
        if str(error) != "text" and value is not True:
            return ""
        metadata = type(self).__dataclass_fields__[name].metadata  # type: ignore[attr-defined]
        if choices := metadata.get("choices"):
            return f": {', '.join(choices)}"
        return f" ({metadata['doc']})" if "doc" in metadata else ""

    @classmethod
    def expand(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was given by name, with short forms that stand for several settings written out."""
        return given

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:  # noqa: ARG002
        """Why settings `taken` from a run's `file`, which may be a stranger's, must not be used."""
        return []

    def problems(self) -> list[str]:
        """What is wrong at a glance, one line each: choices, bounds, and `cross_problems`."""
        found: list[str] = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Settings):
                found += value.problems()
            else:
                found += _value_problems(field, value)
        return list(dict.fromkeys([*found, *self.cross_problems()]))

    def cross_problems(self) -> list[str]:
        """What a field alone does not show; found without importing torch, one line each."""
        return []


def _short(value: Any) -> str:
    """A value in a line: an object that is written at length by its kind.

    >>> _short("fast"), _short(range(3)), _short([0] * 99)
    ("'fast'", 'range(0, 3)', '<list>')
    """
    written = repr(value)
    is_short = isinstance(value, str) or (len(written) <= 60 and written.isprintable())
    return written if is_short else f"<{type(value).__name__}>"


def _value_problems(field: dataclasses.Field[Any], value: Any) -> list[str]:
    """What is wrong with one value by its own field's choices and bounds."""
    choices, bounds = field.metadata.get("choices"), field.metadata.get("bounds")
    flag = flag_of(field.name)
    if value is None:
        return []
    if field.name in ("out", "destination") and not may_exist(value):
        return [f"{flag} {value[:60]!r}...: no file can have such a name"]
    if (
        field.name == "out"
        and value != field.default
        and not value.rpartition("://")[2].strip("/ ")
    ):
        # As of a variable that is not set, in `--out "$RUNS"` and `--out "s3://$BUCKET"`.
        return [f"--out {value!r}: names no place that could be written to"]
    if choices and value not in choices:
        return [f"{flag} {value}: " + unknown(flag[2:], str(value), choices)]
    if not bounds:
        return []
    if abs(value) < math.inf and all(_BOUNDS[name][0](value, bounds[name]) for name in bounds):
        return []
    rule = " and ".join(f"{_BOUNDS[name][1]} {_written(bounds[name])}" for name in bounds)
    return [f"{flag} {value}: must be {rule}{' and finite' if value == math.inf else ''}"]


def _written(bound: float) -> str:
    """A bound as a message writes it.

    >>> _written(0.5), _written(1000), _written(10**12), _written(2**63)
    ('0.5', '1000', '1e+12', '2^63')
    """
    if isinstance(bound, int) and bound > 1 << 20 and bound & (bound - 1) == 0:
        return f"2^{bound.bit_length() - 1}"
    return f"{bound:g}" if abs(bound) > 1 << 20 else str(bound)


_HINTS: dict[type[Any], Mapping[str, Any]] = {}
"""What `hints_of` has found: a run asks a hundred times, and each costs a millisecond."""


def hints_of(section: type[Any]) -> Mapping[str, Any]:
    """Names and types of a class's fields."""
    if section not in _HINTS:
        hints = typing.get_type_hints(section)
        names = [field.name for field in dataclasses.fields(section)]
        _HINTS[section] = MappingProxyType({name: hints[name] for name in names})
    return _HINTS[section]


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

    A `UserError` gives every unknown name and every value of a wrong type.
    """
    left, found = dict(settings), list[str]()
    chosen: dict[str, dict[str, Any]] = {}
    for name, section in hints_of(tree).items():
        left = dict(section.expand(left))
        chosen[name] = {key: left.pop(key) for key in hints_of(section) if key in left}
    known = {key for section in hints_of(tree).values() for key in hints_of(section)}
    for name in sorted(left):
        same = option_of(name, (key.replace("_", "-") for key in known))
        near = [same.replace("-", "_")] if same else get_close_matches(name, known, n=2)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        if led := instead_of(name, [flag_of(key) for key in known]):
            hint = f": give {led}"
        found.append(f"there is no setting {name!r}{hint}")
    made = from_sections(tree, chosen, found)
    if found:
        raise UserError([*found, *made.problems()])
    return made


def readable(tree: type[Tree], settings: Mapping[str, Any]) -> Tree:
    """The settings from those values that can be read one by one."""
    kept = {}
    for name, value in settings.items():
        with suppress(UserError):
            build_tree(tree, {name: value})
            kept[name] = value
    try:
        return build_tree(tree, kept)
    except UserError:
        return tree()


def build_or_tell_all(tree: type[Tree], settings: Mapping[str, Any]) -> Tree:
    """As `build_tree`, whose error tells here what is wrong with values that can be read too."""
    try:
        return build_tree(tree, settings)
    except UserError as error:
        others = readable(tree, settings).problems()
        raise UserError(dict.fromkeys([*error.problems, *others])) from None


def from_sections(
    tree: type[Tree], chosen: Mapping[str, Mapping[str, Any]], found: Iterable[str]
) -> Tree:
    """A tree of settings from what was given, by section and name; `found` is wrong already."""
    parts, refused = {}, list[str]()
    for name in hints_of(tree):
        try:
            parts[name] = section_with_run(tree, chosen, name)
        except UserError as error:
            refused += error.problems
    if refused:
        # A damaged file of a run is so for every section.
        raise UserError(dict.fromkeys([*found, *refused]))
    return tree(**parts)


def section_with_run(tree: type[Any], chosen: Mapping[str, Mapping[str, Any]], section: str) -> Any:
    """A section of settings; what was not given is taken from the run, if one is resumed.

    A `UserError` gives every value of a wrong type, or that must not be taken from a run.
    """
    make, given = hints_of(tree)[section], chosen[section]
    place = next((c for c in chosen.values() if c.get("resume") and c.get("out")), None)
    if place is None:
        return make(**given)
    file = Path(str(place["out"])).expanduser() / "config.json"
    try:
        kept = found_here(parse_json(file.read_text(encoding="utf-8"))[section], file.parent)
    except ValueError as error:
        raise UserError(
            f"{file} is damaged ({error}): put it back, or give all settings and --overwrite"
        ) from error
    except (OSError, LookupError, TypeError):
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
