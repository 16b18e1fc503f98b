"""Tuning files: what `python -m benchmarks.bench tune` has measured, and how a training takes it.

    {"sixfold_tuning": 1, "model": "slide", "model_args": "", "shape": [3, 32, 32], "classes": 10,
     "precision": "float32", "machine": {...}, "versions": {...}, "made": ...,
     "entries": [{"batch_size": 2000, "shards": 1, "shard_images": 2000, "micro_batch": 50,
                  "formula": 47, "measured": {...}}]}

`shards` is what `--shards` says, null where the batch size decides; `micro_batch` is null where
whole shards were fastest. A training takes the entry of its batch size and shards. Its run
directory keeps a copy of the file as it was when the run began, which a resume takes instead, so
that the bits do not change with the file.
"""

import dataclasses
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import parse_json
from sixfold.core.run_directory import RunDirectory, read_json, read_whole_json
from sixfold.data import DataSet
from sixfold.training.config import TrainConfig

VERSION = 1
COPY = "tuning.json"  # in the run directory
Tuning = dict[str, Any]


def read_tuning(path: Path) -> Tuning:
    """A tuning file's content; a `UserError` if it cannot be read or is none."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--tuning {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--tuning {path}: is no JSON ({error})") from error
    version = found.get("sixfold_tuning") if isinstance(found, dict) else None
    if version is None:
        raise UserError(f"--tuning {path}: is no file of `python -m benchmarks.bench tune`")
    if version != VERSION:
        raise UserError(
            f"--tuning {path}: version {version}, this Sixfold reads version {VERSION}; run "
            "`python -m benchmarks.bench tune` again"
        )
    damage = _damage(found)
    if damage:
        raise UserError(f"--tuning {path}: {damage}; run `python -m benchmarks.bench tune` again")
    tuning: Tuning = found
    return tuning


def _damage(tuning: Tuning) -> str | None:
    """What is missing or of a wrong kind; None if nothing is."""
    names = ("model", "model_args", "shape", "classes", "precision")
    missing = [name for name in names if name not in tuning]
    if missing:
        return f"has no {', '.join(missing)}"
    entries = tuning.get("entries")
    if not isinstance(entries, list) or not entries:
        return "has no entries"
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"batch_size", "shards", "micro_batch"} <= set(entry):
            return f"entry {number} has no batch_size, shards and micro_batch"
        micro = entry["micro_batch"]
        if micro is not None and (type(micro) is not int or micro < 1):
            return f"entry {number} has the micro-batch {micro!r}, which is no number of images"
    return None


def take_tuning(
    config: TrainConfig, opened: DataSet, directory: RunDirectory, on_event: OnEvent
) -> tuple[TrainConfig, Tuning | None]:
    """The settings with the tuning's micro-batch in the place of the file, and what the run keeps.

    A run in `directory` that is resumed holds the tuning that it began with; `on_event` hears if
    that is no longer the file's. A `UserError` if it cannot be read, or was made for something
    else.
    """
    if config.compute.tuning is None:
        return config, None
    path = Path(config.compute.tuning)
    kept = read_whole_json(directory.file(COPY)) if config.run.resume else None
    tuning = read_tuning(path) if kept is None else kept
    if kept is not None and kept != read_json(path):
        text = f"--tuning {path} is not what it was when the run began, whose copy of it is taken"
        on_event({"kind": "note", "text": text})
    found = misfits(tuning, config, opened)
    if found:
        raise UserError(f"--tuning {path}: was made for {'; '.join(found)}")
    micro = _entry(tuning, config)["micro_batch"]
    compute = dataclasses.replace(
        config.compute, tuning=None, micro_batch="off" if micro is None else str(micro)
    )
    return dataclasses.replace(config, compute=compute), tuning


def misfits(tuning: Tuning, config: TrainConfig, opened: DataSet) -> list[str]:
    """In what a tuning differs from a training, each with both values."""
    here: dict[str, Any] = {
        "model": config.model.model,
        "model_args": config.model.model_args,
        "shape": list(opened.shape),
        "classes": opened.outputs,
        "precision": config.training.precision,
    }
    found = [
        f"--{name.replace('_', '-')} {_written(tuning[name])}, not {_written(value)}"
        if name in ("model", "model_args", "precision")
        else f"{_WHAT[name]} {_written(tuning[name])}, not {_written(value)}"
        for name, value in here.items()
        if tuning[name] != value
    ]
    if _entry(tuning, config) is None:
        training = config.training
        there = ", ".join(_case(e["batch_size"], e["shards"]) for e in tuning["entries"])
        found.append(f"{there}, not {_case(training.batch_size, training.shards)}")
    return found


_WHAT = {"shape": "images of", "classes": "classes:"}


def _entry(tuning: Tuning, config: TrainConfig) -> Any:
    training = config.training
    for entry in tuning["entries"]:
        if (entry["batch_size"], entry["shards"]) == (training.batch_size, training.shards):
            return entry
    return None


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(str(number) for number in value)
    return repr(value) if value == "" else str(value)


def _case(batch: int, shards: int | None) -> str:
    """A batch size and `--shards`, as one gives them.

    >>> _case(100, None), _case(2000, 1)
    ('--batch-size 100', '--batch-size 2000 --shards 1')
    """
    return f"--batch-size {batch}" + ("" if shards is None else f" --shards {shards}")
