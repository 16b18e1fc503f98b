"""What is varied: from `NAME=V1,V2,...` to the settings of every combination."""

import dataclasses
import itertools
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.naming import meant
from sixfold.core.values import read_value
from sixfold.training.config import TrainConfig
from sixfold.training.strategies.registry import STRATEGIES

MODEL = "model."  # begins the name of an argument of the network
# Sections whose settings say where a run is or what it begins with, not how it is made; and a file
# that the launcher of a single run reads.
_NOT_VARIED = ("run", "initialization", "tuning")


@dataclass(frozen=True, kw_only=True)
class Varied:
    """A setting that is varied."""

    name: str
    section: str  # of `TrainConfig`
    values: tuple[Any, ...]  # as the setting holds them; as text for an argument of the network


One = TypeVar("One", bound=Varied)


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One choice of all values."""

    values: Mapping[str, Any]  # by name of what is varied
    config: TrainConfig  # the settings of a training with them

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(f"{name}={value}" for name, value in self.values.items()) or "as given"


def parse_vary(texts: Sequence[str]) -> list[Varied]:
    """Read `--vary`; a `UserError` with everything that cannot be read.

    >>> [varied.values for varied in parse_vary(["workers=1,2", "grid=rows=2|cout=2"])]
    [(1, 2), ('rows=2', 'cout=2')]
    """
    return parse_all(texts, "--vary", parse_one)


def parse_all(texts: Sequence[str], flag: str, parse: Callable[[str, str], One]) -> list[One]:
    """Read each text of an option; a `UserError` with everything that cannot be read."""
    found: list[One] = []
    problems: list[str] = []
    for text in texts:
        try:
            one = parse(text, flag)
        except UserError as error:
            problems += error.problems
            continue
        if any(one.name == other.name for other in found):
            problems.append(f"{flag} {text}: {one.name} is given twice")
        found.append(one)
    raise_problems(problems)
    return found


def parse_one(text: str, flag: str) -> Varied:
    """Read `NAME=V1,V2,...` of an option."""
    name, rest, section, hint = parse_name(text, flag)
    words = [word.strip() for word in rest.split("|" if "|" in rest else ",")]
    if not any(words):
        raise UserError(_form(text, flag))
    if section is None:
        return Varied(name=name, section="model", values=tuple(dict.fromkeys(words)))
    values = []
    for word in words:
        try:
            values.append(read_value(word, hint))
        except ValueError as error:
            raise UserError(f"{flag} {text!r}: {word!r} of {name}: expected {error}") from None
    return Varied(name=name, section=section, values=tuple(dict.fromkeys(values)))


def parse_name(text: str, flag: str) -> tuple[str, str, str | None, Any]:
    """Name of a setting, what stands behind `=`, its section and type; None for an argument."""
    name, equals, rest = text.partition("=")
    plain = name.strip().replace("-", "_")
    if not equals or not plain:
        raise UserError(_form(text, flag))
    if plain.startswith(MODEL):
        if not plain.removeprefix(MODEL).isidentifier():
            raise UserError(f"{flag} {text!r}: {plain} is no name of an argument")
        return plain, rest, None, None
    known = settings()
    if plain not in known:
        near = meant(plain, known)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(
            f"{flag} {text!r}: {plain} is no setting of `sixfold train` that can be varied{hint}"
        )
    return plain, rest, *known[plain]


def _form(text: str, flag: str) -> str:
    return f"{flag} {text!r}: expected NAME=V1,V2,..., such as batch-size=10,100"


def settings() -> dict[str, tuple[str, Any]]:
    """Every setting that can be varied: name to section and type."""
    return {
        field.name: (section, hints[field.name])
        for section, section_class in typing.get_type_hints(TrainConfig).items()
        if section not in _NOT_VARIED
        for hints in [typing.get_type_hints(section_class)]
        for field in dataclasses.fields(section_class)
        if field.name not in _NOT_VARIED
    }


def combinations(base: TrainConfig, varied: Sequence[Varied]) -> list[Combination]:
    """All combinations of the values, the last setting varying fastest."""
    found = []
    for values in itertools.product(*(one.values for one in varied)):
        config = applied(base, list(zip(varied, values, strict=True)))
        chosen = {one.name: value for one, value in zip(varied, values, strict=True)}
        found.append(Combination(values=chosen, config=config))
    return found


def applied(config: TrainConfig, chosen: Sequence[tuple[Varied, Any]]) -> TrainConfig:
    """The settings with a value for each of what is varied."""
    for one, value in chosen:
        config = _with(config, one, value)
    return _fitting(config, {one.name for one, _ in chosen})


def _with(config: TrainConfig, varied: Varied, value: Any) -> TrainConfig:
    if varied.name.startswith(MODEL):
        name = varied.name.removeprefix(MODEL)
        pairs = [
            pair
            for pair in config.model.model_args.split(",")
            if pair.strip() and pair.partition("=")[0].strip() != name
        ]
        return _changed(config, "model", model_args=",".join([*pairs, f"{name}={value}"]))
    # Each of the two takes the other's place.
    other = {"steps": "epochs", "epochs": "steps"}.get(varied.name)
    instead = {other: None} if other else {}
    return _changed(config, varied.section, **{varied.name: value}, **instead)


def _fitting(config: TrainConfig, names: set[str]) -> TrainConfig:
    """Settings that a varied strategy or engine does not take, put back to their defaults."""
    if "strategy" in names:
        for spec in STRATEGIES.values():
            for section, options in spec.options.items():
                if spec.name != config.strategy.strategy:
                    usual = type(getattr(config, section))()
                    values = {name: getattr(usual, name) for name in options}
                    config = _changed(config, section, **values)
    if "engine" in names and config.engine.engine != "spark":
        config = _changed(config, "engine", master=None, spark_conf=())
    return config


def _changed(config: TrainConfig, section: str, **values: Any) -> TrainConfig:
    part = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: part})
