"""What can be placed on the roofline: the results of sweeps, trainings and studies of the lab."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError
from sixfold.core.files import parse_json
from sixfold.core.run_directory import typed
from sixfold.studies.lab.activations.study import ActivationsResult
from sixfold.studies.lab.cluster import Cost
from sixfold.studies.lab.config import ConvolutionOptions, JobPerStepOptions, geometry_of
from sixfold.studies.lab.job_per_step.study import JobPerStepResult
from sixfold.studies.lab.long_lived import network
from sixfold.studies.lab.loopnest.summary import LoopnestResult
from sixfold.studies.lab.matmul.summary import MatmulResult
from sixfold.studies.sweep.arithmetic import training_flops
from sixfold.studies.sweep.results import TimedRow, TimeResult
from sixfold.studies.sweep.roofline import Placed


def read_result(path: Path) -> Any:
    """The JSON of a result file; a `UserError` if there is none."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error})") from error


def result_files(folder: Path) -> list[Path]:
    """Files in a directory that may hold figures, a study's too; a `UserError` if none."""
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
    """What a result file holds that has a place on the roofline; a `UserError` if damaged."""
    result = read_result(path)
    if not isinstance(result, dict):
        return []
    try:
        if result.get("what") == "time":
            return [found for row in typed(TimeResult, result).points for found in _timed(row)]
        if "train_images_per_s" in result:
            return [_trained(path.parent, result, trust)]
        if (study := result.get("study")) in _STUDIES:
            kind, places = _STUDIES[study]
            return list(places(typed(kind, result), result["settings"], int(result["slots"])))
    except UserError as error:
        raise UserError(f"{path}: {problem}; make it anew" for problem in error.problems) from error
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{path}: lacks figures of a sweep, a training or a study ({error!r}); make it anew"
        ) from error
    return []


def _timed(row: TimedRow) -> Iterator[Placed]:
    """A combination of a sweep over time: a task is a rank's part of a step."""
    each = row.flops_per_image
    if row.images_per_s is not None and each:
        values = " ".join(f"{name}={value}" for name, value in row.values.items())
        yield Placed(
            name=values or "as given",
            group=f"{row.strategy}, one long job" if row.engine == "spark" else row.strategy,
            workers=row.workers,
            task_flops=each * row.batch_size / row.workers,
            flops=each * row.images_per_s.median,
            step_bytes=row.weight_bytes or 0.0,
        )


def _trained(folder: Path, result: Mapping[str, Any], trust: bool) -> Placed:
    """A training: the same, if its network can be built here."""
    from sixfold.training.model_card import read_card, weights_file

    card = read_card(weights_file(folder), trust=trust)
    each = training_flops(card.build(), card.shape)
    batch = read_result(folder / "config.json")["training"]["batch_size"]
    return Placed(
        name=folder.name,
        group=result["strategy"],
        workers=result["workers"],
        task_flops=each * batch / result["workers"],
        flops=each * result["train_images_per_s"],
        step_bytes=4.0 * result.get("parameters", 0),
    )


def _loopnest(result: LoopnestResult, _: Any, slots: int) -> Iterator[Placed]:
    """The designs in blocks and as they are written, and the long-lived job's forward."""
    whole, group = 2.0 * result.multiply_adds, "lab: loopnest"
    yield Placed(
        name="long-lived job, forward",
        group=group,
        workers=slots,
        task_flops=whole / slots,
        flops=whole / result.long_lived.forward_s,
    )
    for one in result.designs:
        each = 2.0 * one.multiply_adds_a_task
        yield _job(f"design {one.name}", group, slots, one.cost, whole, each)
    for run in result.literal:  # a product each
        name = f"design {run.name}, literally"
        yield _job(name, f"{group}, literally", slots, run.cost, 2.0 * run.records)


def _matmul(result: MatmulResult, _: Any, slots: int) -> Iterator[Placed]:
    for one in result.products:
        for way in one.ways:
            yield _job(f"{one.name} by {way.way}", "lab: matmul", slots, way.cost, one.flops)


def _activations(
    result: ActivationsResult, settings: Mapping[str, Any], slots: int
) -> Iterator[Placed]:
    """The step in two stages, by where activations are kept in between."""
    geometry = geometry_of(ConvolutionOptions(**settings["convolution"]))
    shape = (geometry.channels, *geometry.size)
    whole = training_flops(network(geometry), shape) * geometry.batch
    for way in result.ways:
        cost = Cost(
            wall_s=statistics.median(way.times_s), tasks=way.forward.tasks + way.backward.tasks
        )
        yield _job(f"activations kept: {way.way}", "lab: activations", slots, cost, whole)


def _jobs_per_step(
    result: JobPerStepResult, settings: Mapping[str, Any], slots: int
) -> Iterator[Placed]:
    """A training by a job for each step, and the same steps in one long job."""
    from sixfold import models
    from sixfold.data import open_data, resolve
    from sixfold.data.config import DataConfig
    from sixfold.models.config import ModelConfig

    options = JobPerStepOptions(**settings["job_per_step"])
    opened = open_data(resolve(DataConfig(data=options.data)))
    model = ModelConfig(model=options.model)
    built = models.build(model, shape=opened.shape, classes=opened.outputs, seed=0)
    each = training_flops(built, opened.shape)
    for one in result.batches:
        step = each * one.batch
        cost = Cost(wall_s=one.by_jobs_s, tasks=one.cost.tasks)
        name = f"batch {one.batch}"
        yield _job(f"{name}, a job for each step", "lab: job-per-step", slots, cost, step)
        yield Placed(
            name=f"{name}, one long job",
            group="lab: one long job",
            workers=slots,
            task_flops=step / slots,
            flops=step / one.long_lived_s,
        )


def _job(
    name: str, group: str, slots: int, cost: Cost, whole: float, each: float | None = None
) -> Placed:
    """Jobs of so many operations in all, and of each task (all over the tasks if not given)."""
    return Placed(
        name=name,
        group=group,
        workers=slots,
        task_flops=whole / max(cost.tasks, 1) if each is None else each,
        flops=whole / cost.wall_s,
        jobs=True,
    )


_STUDIES: dict[Any, tuple[type[Any], Callable[[Any, Mapping[str, Any], int], Iterator[Placed]]]] = {
    "loopnest": (LoopnestResult, _loopnest),
    "matmul": (MatmulResult, _matmul),
    "activations": (ActivationsResult, _activations),
    "job-per-step": (JobPerStepResult, _jobs_per_step),
}
"""A study of the lab -> its result, and what is placed of it."""
