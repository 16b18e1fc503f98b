"""The launcher of a prediction."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import folder_of_parts, write_json
from sixfold.core.locks import held
from sixfold.core.run_directory import read_json
from sixfold.core.version import versions
from sixfold.data import absolute_spec
from sixfold.data.config import DataConfig
from sixfold.data.run import resolve_data, told
from sixfold.distributed.session import open_engine_for, restarts_of
from sixfold.prediction.config import PredictConfig
from sixfold.training.inputs import warn_if_edited

if TYPE_CHECKING:
    from sixfold.data.formats.kept_columns import KeptColumns


def predict(config: PredictConfig, *, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Classify a data set with a trained network, into a Parquet file.

    The figures that ``FILE.json`` holds: number of images and, where there are labels, accuracy,
    per-class counts, confusion matrix and the worst mistakes.
    """
    started = time.monotonic()
    given, on_event = on_event, on_event or (lambda _: None)
    if found := config.problems():
        raise UserError(found)
    out = Path(config.prediction.out).expanduser().absolute()
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out {out}: must be a file in a directory that exists")

    from sixfold import data as datasets
    from sixfold.compression.loading import read_card
    from sixfold.prediction.worker import PredictJob, check_fit, class_map, join_parts, predict_rank
    from sixfold.training.model_card import weights_file

    weights = weights_file(Path(config.prediction.run).expanduser().absolute())
    card = read_card(weights, trust=config.prediction.trust_model)
    warn_if_edited(card, given)
    sparse = None
    if config.prediction.sparse is not None:
        from sixfold.prediction.sparse.choose import load_choice

        sparse = Path(config.prediction.sparse).expanduser().absolute()
        load_choice(sparse)  # refused here rather than in every rank
    kept = _kept_columns(config)
    opening = open_engine_for(config.engine, card.model, together=True)
    with held(out, is_file=True), opening as engine:
        workers = config.engine.workers or engine.slots()
        asked = DataConfig(
            data=config.prediction.data,
            resize=config.prediction.resize or fitting_side(card.shape),
            image_column=config.prediction.image_column,
            label_column=config.prediction.label_column,
            on_error=config.prediction.on_error,
        )
        asked = as_trained(weights, asked)
        resolved = resolve_data(asked, engine, workers, on_event, labelled=False)
        opened = datasets.open_data(resolved)
        check_fit(card, opened)
        if opened.bad:
            on_event({"kind": "note", "text": f"left out of the data: {told(opened.bad)}"})
        part = config.prediction.split
        if part == "auto":
            part = "test" if opened.own_test or trained_on(weights, asked) else "all"
        with folder_of_parts(out) as parts:
            job = PredictJob(
                weights=weights,
                trusted=card.model,
                data=resolved,
                part=part,
                labels=class_map(card, opened.classes),
                parts=parts,
                sparse=sparse,
            )
            group = engine.run_ranks(
                functools.partial(predict_rank, job),
                workers,
                max_restarts=restarts_of(config.engine),
                on_event=_sum_up(on_event),
            )
            figures = join_parts(parts, out, card, kept)
    figures |= {
        "run": str(weights.parent),
        "data": config.prediction.data,
        "part": part,
        "file": str(out),
        "bad_files": list(opened.bad),
        "skipped_images": opened.skipped,
        "workers": workers,
        "engine": config.engine.engine,
        "restarts": group.restarts,
        "wall_s": round(time.monotonic() - started, 3),
        "versions": versions(),
    }
    write_json(out.with_name(out.name + ".json"), figures)
    return figures


def _kept_columns(config: PredictConfig) -> KeptColumns | None:
    """The columns of a table that the result takes over."""
    from sixfold.data.formats.kept_columns import KeptColumns
    from sixfold.data.spec import parse_spec

    asked = config.prediction
    others = [name.strip() for name in asked.keep_columns.split(",") if name.strip()]
    if asked.id_column is None and not others:
        return None
    spec = parse_spec(asked.data)
    if spec.kind != "parquet":
        option = f"--id-column {asked.id_column}" if asked.id_column else "--keep-columns"
        raise UserError(f"{option}: only parquet:PATH has columns, and the data is {asked.data}")
    return KeptColumns(spec.where, asked.id_column, others)


def trained_on(weights: Path, asked: DataConfig) -> bool:
    """Whether the run was trained on the data that are asked for."""
    settings = read_json(weights.with_name("config.json")) or {}
    trained = settings.get("data", {}).get("data", "")
    return bool(trained) and trained == absolute_spec(asked.data)


def as_trained(weights: Path, asked: DataConfig) -> DataConfig:
    """The data with the run's own test part, where it was trained on them."""
    if not trained_on(weights, asked):
        return asked
    settings = read_json(weights.with_name("config.json")) or {}
    return replace(asked, test_split=settings["data"].get("test_split"))


def fitting_side(shape: tuple[int, int, int]) -> int | None:
    """The size to bring images to: the network's, if it is square."""
    return shape[1] if shape[1] == shape[2] else None


def _sum_up(on_event: OnEvent) -> Any:
    """Turn the ranks' counts into one."""
    counts: dict[int, int] = {}

    def hear(rank: int, event: Any) -> None:
        if event.get("kind") == "predicted":
            counts[rank] = event["images"]
            on_event({"kind": "predicted", "images": sum(counts.values())})

    return hear
