"""Which run directory is used, and whether it may be: what lies there may be another run's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.locks import held
from sixfold.core.run_directory import RunDirectory, as_json, differences, read_json
from sixfold.training.inputs import RECORD, Inputs

_PLACEMENT = ("engine", "strategy.grid", "learn.grid")
"""Who computes what, where: a run may go on with others."""


def run_path(config: Any, defaults: Any, name: str) -> Path:
    """The run directory's absolute path, its name chosen from the settings if none was given.

    Args:
        config: a tree of settings with a section `run`.
        defaults: the same with default values; what differs from them decides the name.
        name: begins the name that is chosen.

    Raises:
        UserError: if it is a URL, which ranks could not map.
    """
    out = config.run.out
    if out is None:
        out = f"runs/{name.replace(':', '-')}-{_short_hash(config, defaults)}"
    elif "://" in out and not out.startswith("file://"):
        raise UserError(
            f"--out {out}: the run directory must be a path that all hosts mount; copy it to "
            "other storage when the run is done"
        )
    return Path(out.removeprefix("file://")).expanduser().absolute()


def _short_hash(config: Any, defaults: Any) -> str:
    """Eight hexadecimal digits that tell settings apart, the place of the run left out."""
    settings, usual = as_json(config), as_json(defaults)
    settings.pop("run")
    changed = {
        f"{section}.{name}": value
        for section, values in settings.items()
        for name, value in values.items()
        if value != usual[section][name]
    }
    text = json.dumps(changed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def refuse_foreign_files(directory: RunDirectory, *more: str) -> None:
    """Refuse a directory in which a run would remove what is not a run's.

    Args:
        directory: where the run is to be.
        more: patterns of what it would remove besides what every run does.

    Raises:
        UserError: if there is such a thing.
    """
    if found := directory.foreign_files(*more):
        raise UserError(
            f"{directory.path} holds {', '.join(found)} and no run of Sixfold: choose another "
            "--out, or have them removed with --overwrite"
        )


@contextmanager
def held_run(config: Any, directory: RunDirectory) -> Iterator[None]:
    """Have a run's directory to oneself, from looking at what lies there to the run's end.

    Args:
        config: a tree of settings with a section `run`.
        directory: where the run is to be; made if absent, and gone again if nothing was put there.

    Raises:
        UserError: if another process has it, or if it is to be resumed and is not there.
    """
    if config.run.resume and not directory.path.is_dir():
        raise UserError(f"--resume: there is no run directory {directory.path}")
    with held(directory.path):
        yield


def existing_run(
    config: Any,
    directory: RunDirectory,
    inputs: Inputs | None = None,
    *,
    growing: tuple[str, ...] = (),
    more: tuple[str, ...] = (),
    where: tuple[str, ...] = ("engine",),
) -> dict[str, Any] | None:
    """The result of a finished run with the same settings and inputs; refuse to mix runs.

    Args:
        config: a tree of settings with a section `run`.
        directory: where the run is to be.
        inputs: content that enters the run.
        growing: settings, as sections or ``section.name``, that may differ where the run is
            resumed, which is unfinished then.
        more: patterns of what the run leaves besides what every run does.
        where: settings on which a finished run's result does not depend.

    Raises:
        UserError: if the directory holds another run, or what is no run's at all, or if a file
            that entered the run has changed since.
    """
    if not config.run.resume and not config.run.overwrite:
        refuse_foreign_files(directory, *more)
    if not directory.holds_a_run() or config.run.overwrite:
        return None
    result = directory.result()
    old, new = directory.config(), as_json(config)
    if old is None:
        raise UserError(
            f"{directory.file('config.json')} is damaged: put it back, or replace the run with "
            "--overwrite"
        )
    without = ("run", *where)
    grows = False
    if config.run.resume:
        # What promises less than what was done goes on from it.
        if new.get("strategy", {}).get("deterministic") is False:
            old["strategy"] = old.get("strategy", {}) | {"deterministic": False}
        without = (*without, *_PLACEMENT)
        grows = bool(differences(_only(old, growing), _only(new, growing)))
        without = (*without, *growing)
    old, new = _without(old, without), _without(new, without)
    if changed := _differences(old, new):
        goes_on = not _differences(_without(old, growing), _without(new, growing))
        remedy = "go on from it with --resume, choose" if goes_on else "choose"
        raise UserError(
            [
                f"{directory.path} holds a run with other settings: {remedy} another --out, or "
                "replace it with --overwrite",
                *changed,
            ]
        )
    if inputs is not None:
        refuse_changed(directory, inputs, growing=grows)
    if grows:
        result = None
    if result is None and not config.run.resume:
        raise UserError(
            f"{directory.path} holds a run that was not finished: go on with --resume, or replace "
            "it with --overwrite"
        )
    return result


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return differences({name: old.get(name, {}) for name in new}, new)


def refuse_changed(directory: RunDirectory, inputs: Inputs, *, growing: bool = False) -> None:
    """Refuse to take a directory's run for one whose files or data have other content.

    Raises:
        UserError: that names what has changed.
    """
    record = read_json(directory.file(RECORD))
    if record is None:
        return
    if changed := inputs.changed(record, growing=growing):
        raise UserError(
            [
                f"{directory.path} holds a run with the same settings, but of other content: "
                "choose another --out, or replace it with --overwrite",
                *changed,
            ]
        )


def _without(settings: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Settings without some sections, and some ``section.name``."""
    return {
        section: {name: v for name, v in values.items() if f"{section}.{name}" not in names}
        for section, values in settings.items()
        if section not in names
    }


def _only(settings: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The sections, and the ``section.name``, that are named."""
    return {
        section: {
            name: value
            for name, value in values.items()
            if section in names or f"{section}.{name}" in names
        }
        for section, values in settings.items()
    }
