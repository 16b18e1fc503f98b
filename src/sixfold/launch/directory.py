"""Which run directory is used, and whether it may be: what lies there may be another run's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sixfold.errors import UserError
from sixfold.run_directory import RunDirectory, as_json, differences

_PLACEMENT = ("engine", "run")
"""Sections of the settings that do not change what is computed."""


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


def refuse_strangers(directory: RunDirectory, *more: str) -> None:
    """Refuse a directory in which a run would remove what is not a run's.

    Args:
        directory: where the run is to be.
        more: patterns of what it would remove besides what every run does.

    Raises:
        UserError: if there is such a thing.
    """
    if found := directory.strangers(*more):
        raise UserError(
            f"{directory.path} holds {', '.join(found)} and no run of Sixfold: choose another "
            "--out, or have them removed with --overwrite"
        )


def older_run(
    config: Any,
    directory: RunDirectory,
    *,
    growing: tuple[str, ...] = (),
    more: tuple[str, ...] = (),
) -> dict[str, Any] | None:
    """The result of a finished run with the same settings; refuse to mix runs.

    Args:
        config: a tree of settings with a section `run`.
        directory: where the run is to be.
        growing: sections that may differ where the run is resumed, which is unfinished then.
        more: patterns of what the run leaves besides what every run does.

    Raises:
        UserError: if the directory holds another run, or what is no run's at all, or none where
            one was to be resumed.
    """
    if config.run.resume and not directory.path.is_dir():
        raise UserError(f"--resume: there is no run directory {directory.path}")
    if not config.run.resume and not config.run.overwrite:
        refuse_strangers(directory, *more)
    if not directory.holds_a_run() or config.run.overwrite:
        return None
    result = directory.result()
    old, new = directory.config(), as_json(config)
    if old is None:
        raise UserError(
            f"{directory.file('config.json')} is damaged: put it back, or replace the run with "
            "--overwrite"
        )
    new.pop("run")
    if config.run.resume:
        old, new = _without(old, _PLACEMENT), _without(new, _PLACEMENT)
        if new.get("strategy", {}).get("exact") is False:  # promises less than what was done
            old["strategy"] = old.get("strategy", {}) | {"exact": False}
        if differences(*({name: tree.get(name, {}) for name in growing} for tree in (old, new))):
            result = None
        old, new = _without(old, growing), _without(new, growing)
    changed = differences({name: old.get(name, {}) for name in new}, new)
    if changed:
        raise UserError(
            [
                f"{directory.path} holds a run with other settings: choose another --out, or "
                "replace it with --overwrite",
                *changed,
            ]
        )
    if result is None and not config.run.resume:
        raise UserError(
            f"{directory.path} holds a run that was not finished: go on with --resume, or replace "
            "it with --overwrite"
        )
    return result


def _without(settings: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    # A grid says who computes what, as the number of workers does: a run may go on in another.
    return {
        section: {name: value for name, value in values.items() if name != "grid"}
        for section, values in settings.items()
        if section not in names
    }
