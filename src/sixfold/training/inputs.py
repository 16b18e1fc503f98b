"""What enters a run besides its settings: content of files, by which runs are told apart.

`inputs.json` of a run directory holds, as it was when the run began::

    {"files": {"/home/me/net.py": {"option": "--model", "sha256": ...}, ...},
     "data": {"folder:/data/set": {"content": ..., "source": ...}}}

`content` follows from the prepared images and labels. `source` follows from names, sizes and times
of the files: where it is unchanged nothing is read again; where it differs the content decides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sixfold import data
from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import file_sha256, write_json
from sixfold.core.life_cycle import RECORD
from sixfold.core.run_directory import RunDirectory, read_json
from sixfold.data.config import DataConfig
from sixfold.models.config import ModelConfig
from sixfold.models.project import (
    project_files,
    relative_names,
    variable_hashes,
    variables_of,
)
from sixfold.training.config import TrainConfig
from sixfold.training.losses.registry import with_target
from sixfold.training.model_card import ModelCard, edited, weights_file

_COPIED = ("--tuning",)
"""Options whose file a run keeps a copy of, which it uses when it is resumed."""

_ENVIRONMENT = ", the environment"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What enters a run."""

    # Path -> the option it was named with (or that led to it), and its hash.
    files: Mapping[str, Mapping[str, str]]
    data: Mapping[str, DataConfig] = field(default_factory=dict)  # name -> the data's settings
    # Name -> what changes when the data's files do.
    sources: Mapping[str, str] = field(default_factory=dict)
    # Name -> hash of the images and labels, where it is known already.
    contents: Mapping[str, str] = field(default_factory=dict)
    models: tuple[ModelConfig, ...] = ()  # the networks
    # Paths of files that a network was found to use only when it was built, which may be after a
    # record was written.
    late: frozenset[str] = frozenset()

    def knowing(self, asked: DataConfig, resolved: DataConfig) -> Inputs:
        """The same with the content of data that have been prepared, and of networks built."""
        content = data.content_fingerprint(resolved)
        contents = {**self.contents, _name(asked): content}
        return dataclasses.replace(self.built(), contents=contents)

    def built(self) -> Inputs:
        """The same with what networks were found to use when they were built."""
        found, late = _network_files(self.models)
        files = {**{name: found[name] for name in late}, **self.files}
        return dataclasses.replace(self, files=files, late=late - {*self.files})

    def source(self, model: ModelConfig) -> dict[str, str]:
        """Hashes of the user's own files that a network is made of, by their names.

        And of the variables of the environment that it reads, by `$NAME`.
        """
        option = f"--model {model.model}"
        hashes = {
            Path(name): entry["sha256"]
            for name, entry in self.files.items()
            if entry["option"] == option
        }
        variables = {
            name: entry["sha256"]
            for name, entry in self.files.items()
            if entry["option"] == f"{option}{_ENVIRONMENT}"
        }
        return {**relative_names(model.model, hashes), **variables}

    def identity(self) -> dict[str, Any]:
        """Plain data that differ if any content does."""
        return {
            "files": {name: entry["sha256"] for name, entry in self.files.items()},
            "data": {name: self._content(name) for name in self.data},
        }

    def write(self, directory: RunDirectory) -> None:
        """Keep them in a run directory, beside what is kept of a run that is resumed."""
        old = read_json(directory.file(RECORD)) or {}
        known = {
            name: {"content": self._content(name), "source": self.sources[name]}
            for name in self.data
        }
        files = {**old.get("files", {}), **self.files}
        write_json(
            directory.file(RECORD),
            {**old, "files": files, "data": {**old.get("data", {}), **known}},
        )

    def _content(self, name: str) -> str:
        """A hash of what the data hold, prepared if they are not."""
        if name in self.contents:
            return self.contents[name]
        return data.content_fingerprint(data.resolve(self.data[name]))

    def _named(self, option: str) -> str:
        """An option for people: the user's other code (a loss, say) is no network."""
        first = f"--model {self.models[0].model}" if self.models else option
        return option if option.startswith(first) else option.removeprefix("--model ")

    def changed(self, record: Mapping[str, Any], *, growing: bool) -> list[str]:
        """What is no longer as a run's record says, one line each; `growing`: more may enter it."""
        _refuse_strange(record)
        old, found = record.get("files", {}), []
        for name in sorted({*old, *self.files}):
            before, now = old.get(name), self.files.get(name)
            if now is None and before["option"] in _COPIED:
                continue
            if now is None and before["option"].startswith("--model "):
                now = _as_it_is(name, before["option"])  # used, perhaps, once the network is built
            if before is None and name in self.late:
                continue
            if before is None or now is None:
                if not growing:
                    option = self._named((before or now or {}).get("option", ""))
                    found.append(f"{option}: {name} {_told_of_one(before, now)}")
            elif before["sha256"] != now["sha256"]:
                found.append(f"{self._named(now['option'])}: {name} has changed since")
        for name in sorted({*record.get("data", {})} & {*self.data}):
            before = record["data"][name]
            if before["source"] == self.sources[name]:
                continue
            if before["content"] != self._content(name):
                found.append(f"--data {name}: its images or labels have changed since")
        return found


def inputs_of(
    *,
    models: Iterable[ModelConfig] = (),
    datasets: Iterable[DataConfig] = (),
    files: Mapping[str, str | None] | None = None,
) -> Inputs:
    """Read what enters a run; a `UserError` if there is no such network or data set.

    The source of `models` counts; `files` maps options to paths of files, or of runs whose weights
    are meant.
    """
    networks = tuple(models)
    found, late = _network_files(networks)
    for option, text in (files or {}).items():
        if text is None:
            continue
        path = Path(text)
        # One that is not there is refused by whoever reads it.
        with contextlib.suppress(OSError, UserError):
            path = weights_file(path) if path.is_dir() else path
            found[str(path)] = {"option": option, "sha256": file_sha256(path)}
    named = {_name(one): one for one in datasets}
    return Inputs(
        files=found,
        data=named,
        sources={name: data.source_fingerprint(one) for name, one in named.items()},
        models=networks,
        late=late,
    )


def _network_files(
    models: Iterable[ModelConfig],
) -> tuple[dict[str, dict[str, str]], frozenset[str]]:
    """Files that networks are made of, and the paths of those that only building them uses."""
    found: dict[str, dict[str, str]] = {}
    late: set[str] = set()
    for model in models:
        files = project_files(model.model, model.model_args)
        for path in (*files.early, *files.late):
            found[str(path)] = {"option": f"--model {model.model}", "sha256": file_sha256(path)}
        hashes = variable_hashes(variables_of(files))
        option = f"--model {model.model}{_ENVIRONMENT}"
        found |= {name: {"option": option, "sha256": one} for name, one in hashes.items()}
        late |= {str(path) for path in files.late} | {f"${name}" for name in files.variables}
    return found, frozenset(late)


def _refuse_strange(record: Mapping[str, Any]) -> None:
    """Raise if a record is not as `write` makes it."""
    known = {"files": ("option", "sha256"), "data": ("content", "source")}
    for section, names in known.items():
        entries = record.get(section, {})
        if not isinstance(entries, dict) or not all(
            isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)
            for entry in entries.values()
        ):
            raise UserError(
                f"{RECORD} of the run is damaged ({section}): put it back, or replace the run with "
                "--overwrite"
            )


def _as_it_is(name: str, option: str) -> dict[str, str] | None:
    """What a file holds now; None if it is gone."""
    if name.startswith("$"):
        variable = name.removeprefix("$")
        hashes = variable_hashes({variable: os.environ.get(variable)})
        return {"option": option, "sha256": hashes[name]}
    path = Path(name)
    return {"option": option, "sha256": file_sha256(path)} if path.is_file() else None


def training_inputs(config: TrainConfig) -> Inputs:
    """What enters a training whose paths are absolute."""
    files: dict[str, str | None] = {
        f"--{name}": getattr(config.initialization, name) for name in ("weights", "mask", "shared")
    }
    # A resumed run takes its own copy of the tuning.
    if not config.run.resume:
        files["--tuning"] = config.compute.tuning
    asked = with_target(config.data, config.loss)
    # The user's other code counts as that of a network does.
    parts = [config.model, *(ModelConfig(model=name) for name in own_code(config))]
    return inputs_of(models=parts, datasets=[asked], files=files)


def own_code(config: TrainConfig) -> list[str]:
    """Names of the user's own objects besides the network: loss, optimizer, callbacks."""
    names = [config.loss.loss, config.optimizer.optimizer, *config.selection.callback]
    known = ("torch.", "sixfold.")
    return [name for name in names if ":" in name and not name.startswith(known)]


def warn_if_edited(card: ModelCard, on_event: OnEvent | None) -> None:
    """Say which files of a trained network's source are not what they were at the training."""
    text = edited(card)
    if text and on_event is None:
        warnings.warn(text, stacklevel=3)
    elif text and on_event is not None:
        on_event({"kind": "note", "text": f"warning: {text}"})


def _name(asked: DataConfig) -> str:
    return asked.data if asked.resize is None else f"{asked.data} --resize {asked.resize}"


def _told_of_one(before: Any, now: Any) -> str:
    assert before is None or now is None, "there is one of the two"
    return "is new since" if before is None else "is no longer there, or no longer part of it"
