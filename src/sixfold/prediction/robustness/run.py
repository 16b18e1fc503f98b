"""The launcher of a robustness evaluation."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import make_folder, write_json
from sixfold.core.locks import held
from sixfold.core.run_directory import as_json, read_whole_json
from sixfold.core.run_store import local_out
from sixfold.core.version import versions
from sixfold.data import DataSet
from sixfold.data.augmentation.views import parse_views
from sixfold.distributed.session import open_engine_for, restarts_of
from sixfold.prediction.robustness.config import EvaluateConfig
from sixfold.prediction.robustness.distortions import KINDS, Distortion, planned
from sixfold.prediction.robustness.figures import halfway
from sixfold.prediction.robustness.ranks import (
    RobustnessJob,
    distorted_parts,
    one_of_each,
    robustness_rank,
)
from sixfold.prediction.robustness.report import Example, write_page
from sixfold.prediction.scoring import asked_data, scored_data, trained_network
from sixfold.training.losses.registry import accuracy_problems
from sixfold.training.model_card import EIGHT_BITS, ModelCard
from sixfold.training.report import optional_page


def evaluate_robustness(
    config: EvaluateConfig, *, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Classify images as they are and under every distortion; what `result.json` holds."""
    started = time.monotonic()
    given, on_event = on_event, on_event or (lambda _: None)
    raise_problems(config.problems())
    weights, card = trained_network(config.evaluation.run, config.evaluation.trust_model, given)
    parse_views(config.evaluation.tta, card.shape)
    raise_problems(accuracy_problems(card.kind, "sixfold evaluate"))
    out = _out(config, weights)
    with held(out):
        return _evaluate(config, out, weights, card, on_event, started)


def _evaluate(
    config: EvaluateConfig,
    out: Path,
    weights: Path,
    card: ModelCard,
    on_event: OnEvent,
    started: float,
) -> dict[str, Any]:
    asked = asked_data(config.evaluation, weights, card)
    with open_engine_for(
        config.engine, card.model, preload=("sixfold.prediction.robustness.ranks",), together=True
    ) as engine:
        workers = config.engine.workers or engine.slots()
        fields, opened = scored_data(
            asked, config.evaluation.split, weights, card, engine, workers, on_event
        )
        if opened.dtype != EIGHT_BITS:
            raise UserError(
                f"--data {asked.data}: images of floating-point numbers: distortions are those of "
                "a camera, with 8-bit pixels"
            )
        job = RobustnessJob(
            images=config.evaluation.max_images,
            distortions=tuple(planned(config.distortion)),
            tta=config.evaluation.tta,
            **fields,
        )
        job, examples, names = _with_examples(job, opened, card, config.distortion.examples)
        make_folder(out)
        group = engine.run_ranks(
            functools.partial(robustness_rank, job),
            workers,
            max_restarts=restarts_of(config.engine),
            on_event=lambda _, event: on_event(event),
            log=out / "log.txt",
        )
    result = {
        **_summary(group.results[0], job.distortions),
        "run": str(weights.parent),
        "data": asked.data,
        "part": job.part,
        "seed": config.distortion.seed,
        "tta": job.tta,
        "classes": list(card.classes),
        "example_labels": names,
        "workers": workers,
        "engine": config.engine.engine,
        "restarts": group.restarts,
        "wall_s": round(time.monotonic() - started, 3),
        "versions": versions(),
        "report": str(out / "report.html"),
    }
    write_json(out / "config.json", as_json(config))
    write_json(out / "result.json", result)
    with optional_page(out / "report.html"):
        write_page(out / "report.html", as_json(config), result, examples)
    return result


def _out(config: EvaluateConfig, weights: Path) -> Path:
    given = config.evaluation.out
    out = local_out(given, config.evaluation.run, weights.parent / "robustness")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; give a directory")
    held = read_whole_json(out / "config.json", "choose another --out, or remove it")
    if held is not None and "evaluation" not in held:
        raise UserError(
            f"--out {out}: holds a run, whose result and report would be lost: choose another "
            "directory"
        )
    return out


def _with_examples(
    job: RobustnessJob, opened: DataSet, card: ModelCard, wanted: int
) -> tuple[RobustnessJob, list[Example], list[str]]:
    """Choose images to be shown, of as many classes as there are, distort and name them."""
    parts = distorted_parts(opened, job, None)
    total = sum(map(len, parts))
    if not total:
        raise UserError(
            f"--data {job.data.data}: none of its images has a label of a class that the network "
            "knows, so there is no accuracy to be told"
        )
    # Of the first part that has images, so that their numbers there are those over all parts.
    place = next(number for number, part in enumerate(parts) if len(part))
    chosen = one_of_each(parts[place].labels)[:wanted]
    examples = []
    for distortion in (None, *job.distortions):
        part = distorted_parts(opened, job, distortion)[place]
        examples.append(Example(distortion=distortion, pixels=list(part.images(chosen))))
    names = [card.classes[label] for label in parts[place].labels[chosen]]
    return dataclasses.replace(job, examples=tuple(map(int, chosen))), examples, names


def _summary(found: dict[str, Any], distortions: tuple[Distortion, ...]) -> dict[str, Any]:
    clean = found["clean"]
    chance = max(entry["images"] for entry in clean["per_class"]) / clean["images"]
    kinds = []
    for name, kind in KINDS.items():
        own = [
            {"strength": distortion.strength, **figures}
            for distortion, figures in zip(distortions, found["distorted"], strict=True)
            if distortion.kind == name
        ]
        if not own:
            continue
        strengths, accuracies = ([f[field] for f in own] for field in ("strength", "accuracy"))
        kinds.append(
            {
                "kind": name,
                "title": kind.title,
                "unit": kind.unit,
                "mean_accuracy": sum(accuracies) / len(own),
                "halfway": halfway(strengths, accuracies, clean=clean["accuracy"], chance=chance),
                "strengths": own,
            }
        )
    means = [kind["mean_accuracy"] for kind in kinds]
    return {
        "images": clean["images"],
        "accuracy": clean["accuracy"],
        "chance": chance,
        "mean_distorted_accuracy": sum(means) / len(means) if means else None,
        "clean": clean,
        "distortions": kinds,
    }
