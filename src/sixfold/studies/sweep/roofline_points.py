"""What can be placed on the roofline: the figures of sweeps, trainings and studies of the lab."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from torch import nn

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json
from sixfold.studies.sweep.roofline import Placed

LAB_CLASSES = 10
"""Outputs of the network that `sixfold lab activations` trains."""


def read_result(path: Path) -> Any:
    """The JSON of a result file.

    Raises:
        UserError: if there is none.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error})") from error


def result_files(folder: Path) -> list[Path]:
    """The files in a directory that may hold figures: `result.json`, or a study's.

    Raises:
        UserError: if there is none.
    """
    if folder.is_file():
        return [folder]
    if (folder / "result.json").is_file():
        return [folder / "result.json"]
    found = sorted(folder.glob("*.json"))
    if not found:
        raise UserError(
            f"--placed {folder}: holds no result; give a directory of `sixfold sweep time`, "
            "`sixfold train` or `sixfold lab`"
        )
    return found


def placed_in(path: Path, *, trust: bool = False) -> list[Placed]:
    """What a result file holds that has a place on the roofline.

    Raises:
        UserError: if it cannot be read.
    """
    result = read_result(path)
    if not isinstance(result, dict):
        return []
    try:
        return _placed(path, result, trust)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"{path}: lacks figures of a sweep, a training or a study ({error!r}); make it anew"
        ) from error


def _placed(path: Path, result: Mapping[str, Any], trust: bool) -> list[Placed]:
    if result.get("what") == "time":
        return [point for row in result["points"] if (point := _timed(row)) is not None]
    if "train_images_per_s" in result:
        return _trained(path.parent, result, trust)
    if result.get("study") == "job-per-step":
        return list(_jobs_per_step(result))
    if result.get("study") == "activations":
        return list(_stages(result))
    return list(_designs(result))


def _timed(row: Mapping[str, Any]) -> Placed | None:
    """A combination of a sweep over time: a task is a rank's part of a step."""
    if "images_per_s" not in row or not row.get("flops_per_image"):
        return None
    each, workers = row["flops_per_image"], row["workers"]
    values = " ".join(f"{name}={value}" for name, value in row["values"].items())
    return Placed(
        name=values or "as given",
        group=f"{row['strategy']}, one long job" if row["engine"] == "spark" else row["strategy"],
        workers=workers,
        task_flops=each * row["batch_size"] / workers,
        flops=each * row["images_per_s"]["median"],
        step_bytes=row.get("weight_bytes") or 0.0,
    )


def _trained(folder: Path, result: Mapping[str, Any], trust: bool) -> list[Placed]:
    """A training: the same, if its network can be built here."""
    from sixfold.studies.sweep.arithmetic import training_flops
    from sixfold.training.model_card import read_card, weights_file

    card = read_card(weights_file(folder), trust=trust)
    each = training_flops(card.build(), card.shape)
    workers = result["workers"]
    batch = read_result(folder / "config.json")["training"]["batch_size"]
    return [
        Placed(
            name=folder.name,
            group=result["strategy"],
            workers=workers,
            task_flops=each * batch / workers,
            flops=each * result["train_images_per_s"],
            step_bytes=4.0 * result["parameters"] if "parameters" in result else 0.0,
        )
    ]


def _jobs_per_step(result: Mapping[str, Any]) -> Iterator[Placed]:
    """The lab's training by a job for each step, and the same steps in one long job.

    Raises:
        UserError: if its data or network are not to be had here.
    """
    from sixfold import models
    from sixfold.data import open_data, resolve
    from sixfold.data.config import DataConfig
    from sixfold.models.config import ModelConfig
    from sixfold.studies.sweep.arithmetic import training_flops

    settings, workers = result["settings"]["job_per_step"], int(result["slots"])
    opened = open_data(resolve(DataConfig(data=settings["data"])))
    model = ModelConfig(model=settings["model"])
    network = models.build(model, shape=opened.shape, classes=len(opened.classes), seed=0)
    each = training_flops(network, opened.shape)
    for entry in result["batches"]:
        step = each * entry["batch"]
        yield Placed(
            name=f"batch {entry['batch']}, a job for each step",
            group="lab: job-per-step",
            workers=workers,
            task_flops=step / max(entry["cost"]["tasks"], 1),
            flops=step / entry["by_jobs_s"],
            jobs=True,
        )
        yield Placed(
            name=f"batch {entry['batch']}, one long job",
            group="lab: one long job",
            workers=workers,
            task_flops=step / workers,
            flops=step / entry["long_lived_s"],
        )


def _stages(result: Mapping[str, Any]) -> Iterator[Placed]:
    """The lab's step in two stages, by where activations are kept in between."""
    from sixfold.studies.sweep.arithmetic import training_flops

    options, workers = result["settings"]["convolution"], int(result["slots"])
    shape, network = _convolution(options)
    whole = training_flops(network, shape) * options["images"]
    for way in result["ways"]:
        tasks = way["forward"]["tasks"] + way["backward"]["tasks"]
        yield Placed(
            name=f"activations kept: {way['way']}",
            group="lab: activations",
            workers=workers,
            task_flops=whole / max(tasks, 1),
            flops=whole / statistics.median(way["times_s"]),
            jobs=True,
        )


def _convolution(options: Mapping[str, Any]) -> tuple[tuple[int, int, int], nn.Module]:
    """The slide network with the lab's convolution, and the shape of its images."""
    from sixfold.models.shapes import flat_features

    def pair(name: str) -> tuple[int, int]:
        rows, columns = (int(word) for word in str(options[name]).split(","))
        return rows, columns

    shape = (int(options["channels"]), *pair("size"))
    features = nn.Sequential(
        nn.Conv2d(
            shape[0],
            int(options["maps"]),
            pair("kernel"),
            stride=pair("stride"),
            padding=pair("padding"),
            dilation=pair("dilation"),
        ),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    flat = flat_features(features, shape)
    return shape, nn.Sequential(features, nn.Flatten(), nn.Linear(flat, LAB_CLASSES))


def _designs(result: Mapping[str, Any]) -> Iterator[Placed]:
    """Studies of the lab: whatever tells operations, tasks, and what its jobs have cost."""
    study, workers = str(result.get("study", "study")), int(result.get("slots") or 1)
    whole = result.get("multiply_adds")
    base = result.get("long_lived")
    if _is_above_0(whole) and isinstance(base, Mapping) and _is_above_0(base.get("forward_s")):
        yield Placed(
            name="long-lived job, forward",
            group=f"lab: {study}",
            workers=workers,
            task_flops=2.0 * whole / workers,
            flops=2.0 * whole / base["forward_s"],
        )
    for entry in _entries(result):
        if _is_above_0(whole) and _is_above_0(entry.get("multiply_adds_a_task")):
            yield from _job(
                f"design {entry.get('name')}",
                f"lab: {study}",
                workers,
                entry.get("cost"),
                2.0 * whole,
                2.0 * entry["multiply_adds_a_task"],
            )
        elif _is_above_0(entry.get("records")):  # a product each
            name, group = f"design {entry.get('name')}, literally", f"lab: {study}, literally"
            yield from _job(name, group, workers, entry.get("cost"), 2.0 * entry["records"])
        elif _is_above_0(entry.get("flops")) and isinstance(entry.get("ways"), list):
            for way in entry["ways"]:
                name = f"{entry.get('name')} by {way.get('way')}"
                yield from _job(name, f"lab: {study}", workers, way.get("cost"), entry["flops"])


def _job(
    name: str, group: str, workers: int, cost: Any, whole: float, each: float | None = None
) -> Iterator[Placed]:
    """Jobs of the lab, if it says what they cost.

    Args:
        name: for people.
        group: it belongs to.
        workers: task slots.
        cost: `wall_s` and `tasks`.
        whole: operations in all.
        each: of a task; all over the number of tasks if None.
    """
    if not isinstance(cost, Mapping) or not _is_above_0(cost.get("wall_s")):
        return
    tasks = cost.get("tasks")
    if each is None and _is_above_0(tasks):
        each = whole / tasks
    if each is None:
        return
    yield Placed(
        name=name,
        group=group,
        workers=workers,
        task_flops=each,
        flops=whole / cost["wall_s"],
        jobs=True,
    )


def _is_above_0(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object within a result, at any depth."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)
