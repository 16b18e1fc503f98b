"""Command-line options generated from the configuration classes, and configurations from them.

Every field of a section becomes one option; its help is the field's documentation. Values come from
the command line, then from ``--config FILE`` (TOML or JSON, one table a section), then from
``SIXFOLD_<NAME>``, then, with ``--resume --out RUN``, from the run, then from the class.
"""

import argparse
import dataclasses
import json
import re
import sys
import tomllib
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sixfold.core.environment import settings_from_environment
from sixfold.core.errors import UserError
from sixfold.core.naming import flag_of, meant, option_of
from sixfold.core.settings import Settings, from_sections, hints_of
from sixfold.core.values import read_value, value_type

Config = TypeVar("Config", bound=Settings)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises, so that all problems leave in one way."""

    def error(self, message: str) -> typing.NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UserError(f"{message} (see `{self.prog} --help`)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, with other spellings and other programs' names of options."""
        own = [flag[2:] for flag in self.flags() if flag.startswith("--")]
        words = []
        for word in sys.argv[1:] if args is None else args:
            flag, equals, value = word.partition("=")
            name = option_of(flag[2:], own) if flag.startswith("--") else None
            words.append(f"--{name}{equals}{value}" if name else word)
        return super().parse_known_args(words, namespace)

    def flags(self, parsed: argparse.Namespace | None = None) -> list[str]:
        """Every option, and with what was parsed those of the chosen mode too."""
        found: list[str] = []
        for action in self._actions:
            found += action.option_strings
            mode = getattr(parsed, action.dest, None)
            if isinstance(action.choices, dict) and mode in action.choices:
                found += action.choices[mode].flags(parsed)
        return found


class _WriteSchema(argparse.Action):
    """Writes the schema of a command's settings and leaves."""

    def __init__(self, *, tree: type[Any], **options: Any) -> None:
        super().__init__(**options)
        self._tree = tree

    def __call__(self, parser: Any, _namespace: Any, file: Any, _option: Any = None) -> None:
        from sixfold.core.console.schema import json_schema

        try:
            Path(file).expanduser().write_text(json.dumps(json_schema(self._tree), indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--write-schema {file}: {error.strerror}") from error
        parser.exit()


def refuse(config: Settings, found: Sequence[str]) -> None:
    """Refuse what could not be read, with all that is wrong at a glance, before large imports."""
    if found:
        raise UserError([*found, *config.problems()])


def add_options(parser: argparse.ArgumentParser, config_class: type[Any]) -> None:
    """One option for every field of every section of a configuration, and one for their schema."""
    parser.add_argument(
        "--write-schema",
        metavar="FILE",
        action=_WriteSchema,
        tree=config_class,
        help="write a JSON Schema of these settings, for editors, and do nothing else",
    )
    for section, section_class in hints_of(config_class).items():
        group = parser.add_argument_group(section, section_class.__doc__)
        hints = hints_of(section_class)
        for field in dataclasses.fields(section_class):
            _add_option(group, field, hints[field.name])


def _add_option(group: Any, field: dataclasses.Field[Any], hint: Any) -> None:
    flag = flag_of(field.name)
    doc, choices = field.metadata["doc"], field.metadata["choices"]
    if field.default not in (None, False, "", ()):
        doc += f" (default {str(field.default).lower() if hint is bool else field.default})"
    kind = value_type(hint)
    # Values stay text here: `read_config` reads them, so that it reports all problems at once.
    options: dict[str, Any] = {"default": None, "help": doc.replace("%", "%%"), "dest": field.name}
    if kind is bool:
        options |= {"nargs": "?", "const": "true", "metavar": "true|false"}
    else:
        form = field.metadata["form"] or "|".join(choices) or kind.__name__.upper()
        options |= {"metavar": form, "action": "append" if kind is tuple else "store"}
    group.add_argument(flag, **options)


def read_config(
    config_class: type[Config], arguments: Mapping[str, Any], file: Path | None = None
) -> tuple[Config, list[str]]:
    """A configuration from parsed options, a file and the environment, and what could not be read.

    A `UserError` says that the file cannot be read at all, or that a run that is resumed has what
    must not be taken from it.
    """
    found: list[str] = []
    from_file = _read_file(file) if file is not None else {}
    environment = settings_from_environment()
    sections = hints_of(config_class)
    for name in sorted(from_file.keys() - sections.keys()):
        found.append(f"{file}: {_unknown_section(name, sections, from_file[name])}")
    chosen: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for section, section_class in sections.items():
        table = from_file.get(section, {})
        if not isinstance(table, dict):
            found.append(f"{file}: [{section}] must be a table of settings")
            continue
        hints = hints_of(section_class)
        table = section_class.expand(_by_field(table, hints))
        around = section_class.expand(_by_field(environment, hints))
        given = section_class.expand(arguments)
        for name in sorted(table.keys() - hints.keys()):
            near = meant(name, hints)
            hint = f": did you mean {' or '.join(near)}?" if near else ""
            found.append(f"{file}: unknown setting {name!r} in [{section}]{hint}")
        for name, hint in hints.items():
            for where, source in (
                (f"SIXFOLD_{name.upper().rstrip('_')}", around),
                (f"{file}: {section}.{name}", table),
                (flag_of(name), given),
            ):
                if source.get(name) is not None:
                    try:
                        chosen[section][name] = read_value(source[name], hint)
                    except ValueError as error:
                        found.append(f"{where} {source[name]!r}: expected {error}")
    _tell_misspelt(environment, {name for each in sections.values() for name in hints_of(each)})
    return from_sections(config_class, chosen, found), found


def _tell_misspelt(environment: Collection[str], known: Collection[str]) -> None:
    """Say which variables look like settings and are none: of another command's they may be."""
    for name in sorted(environment):
        if name in known or f"{name}_" in known or not (near := meant(name, known)):
            continue
        asked, others = (
            f"SIXFOLD_{name.upper()}",
            [f"SIXFOLD_{n.upper().rstrip('_')}" for n in near],
        )
        text = (
            f"warning: {asked} is no setting of this command: did you mean {' or '.join(others)}?"
        )
        if text not in _TOLD:
            _TOLD.add(text)
            print(text, file=sys.stderr)


_TOLD: set[str] = set()
"""Settings are read several times in one command."""


def naming_file(error: UserError, arguments: Mapping[str, Any], file: Path | None) -> UserError:
    """The same error with the settings file named in every line on a setting that it gives."""
    try:
        tables = _read_file(file) if file is not None else {}
    except UserError:
        tables = {}
    given = {
        flag_of(name)
        for table in tables.values()
        if isinstance(table, dict)
        for name in (*table, *(f"{name}_" for name in table))
        if name in arguments and arguments[name] is None
    }
    lines = [
        f"{line} (in {file})" if re.split("[: ]", line)[0] in given else line
        for line in error.problems
    ]
    return UserError(lines)


def _by_field(given: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """Values by field, where Python's keyword `lambda` has an underscore."""
    return {f"{key}_" if f"{key}_" in fields else key: value for key, value in given.items()}


def _unknown_section(name: str, known: Mapping[str, type[Any]], value: Any) -> str:
    for section, section_class in known.items():
        if name in hints_of(section_class):
            return f"{name!r} lies outside of its section: write it below [{section}]"
    if not isinstance(value, dict):
        near = meant(name, {field for each in known.values() for field in hints_of(each)})
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        return f"unknown setting {name!r} outside of all sections{hint}"
    near = meant(name, known)
    hint = f": did you mean [{near[0]}]?" if near else f"; known: {', '.join(known)}"
    return f"unknown section [{name}]{hint}"


def _read_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        value = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"--config {file}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--config {file}: not valid TOML or JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"--config {file}: expected one table a section, such as [training]")
    return value
