"""The user's own objects as settings of a training: packed into its run directory."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.life_cycle import run_path
from sixfold.core.object_store import is_url
from sixfold.core.run_directory import OBJECTS, as_json
from sixfold.core.settings import hints_of
from sixfold.models.objects import describe, pack, title_of
from sixfold.models.packed import is_packed
from sixfold.training.config import TrainConfig
from sixfold.training.run import training_problems
from sixfold.training.tracking.config import TrackingConfig


def problems_without(config: TrainConfig, objects: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings, as far as that can be told before objects are packed."""
    # What a network's and an optimizer's arguments are for is not known yet.
    later = {f"{name}_args": "" for name in ("model", "optimizer") if name in objects}
    asked = with_values(config, later)
    flags = tuple(f"--{name.replace('_', '-')} " for name in objects)
    # What stands in for them until they are packed says nothing.
    return [line for line in training_problems(asked) if not line.startswith(flags)]


@contextmanager
def packed(
    config: TrainConfig,
    objects: Mapping[str, Any],
    callbacks: Sequence[Any] = (),
    purpose: str = "",
) -> Iterator[TrainConfig]:
    """The settings with objects where ranks find them.

    What was put into a run directory goes again if the run is refused.

    Args:
        config: the settings without them.
        objects: by the names of the settings, such as "model".
        callbacks: objects or names.
        purpose: begins the name of a run directory that is chosen here.

    Raises:
        UserError: with everything that is wrong.
    """
    if not objects and not callbacks:
        yield config
        return
    named = _named(config, objects, callbacks, lambda thing, what: describe(thing, what)[0])
    title = title_of(objects.get("model", named.model.model))
    if ":" not in named.model.model or "model" not in objects:
        title = named.model.model
    out = run_path(
        dataclasses.replace(named, tracking=TrackingConfig()), TrainConfig(), purpose + title
    )
    if is_url(out):
        yield _by_name(config, objects, callbacks, out)
        return
    folder = Path(out) / OBJECTS
    with _withdrawn(Path(out)):
        named = _named(config, objects, callbacks, lambda thing, what: pack(thing, folder, what))
        named = dataclasses.replace(named, run=dataclasses.replace(named.run, out=out))
        raise_problems(training_problems(named))
        yield named
    _drop_others(folder, named)


def _by_name(
    config: TrainConfig, objects: Mapping[str, Any], callbacks: Sequence[Any], out: str
) -> TrainConfig:
    """The settings with objects that modules have: a run in a store keeps no others."""
    named = _named(config, objects, callbacks, lambda thing, what: describe(thing, what)[0])
    names = [named.model.model, named.loss.loss, named.optimizer.optimizer]
    if found := [name for name in (*names, *named.selection.callback) if is_packed(name)]:
        raise UserError(
            f"--out {out}: {name.rpartition(':')[2]} is defined in no module, and a run at a URL "
            "keeps no code: write it to a file of your project, or give a directory"
            for name in found
        )
    raise_problems(training_problems(named))
    return dataclasses.replace(named, run=dataclasses.replace(named.run, out=out))


def with_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The settings with some values, by the names of their fields."""
    changed = {}
    for section, hint in hints_of(TrainConfig).items():
        own = {name: value for name, value in values.items() if name in hints_of(hint)}
        if own:
            changed[section] = dataclasses.replace(getattr(config, section), **own)
    return dataclasses.replace(config, **changed)


def _named(
    config: TrainConfig,
    objects: Mapping[str, Any],
    callbacks: Sequence[Any],
    name: Callable[[Any, str], str],
) -> TrainConfig:
    """The settings with objects by their names."""
    config = with_values(config, {what: name(thing, what) for what, thing in objects.items()})
    if not callbacks:
        return config
    made = [c if isinstance(c, str) else name(c, "callback") for c in callbacks]
    return with_values(config, {"callback": (*config.selection.callback, *made)})


def _drop_others(folder: Path, config: TrainConfig) -> None:
    """Remove objects of a run that this one, now finished, has replaced."""
    named = json.dumps(as_json(config))
    for file in folder.glob("*.pkl"):
        if file.name not in named:
            file.unlink(missing_ok=True)


@contextmanager
def _withdrawn(out: Path) -> Iterator[None]:
    """Remove the objects of a run that has been refused, where none was there before."""
    was_there, had_objects = out.exists(), (out / OBJECTS).exists()
    try:
        yield
    except UserError:
        if not had_objects and not (out / "config.json").exists():
            shutil.rmtree(out / OBJECTS, ignore_errors=True)
            if not was_there and out.is_dir() and not any(out.iterdir()):
                out.rmdir()
        raise
