"""The launcher of a prediction."""

import functools
import time
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import write_json
from sixfold.core.output_file import checked_place, is_foreign, output_file
from sixfold.core.version import versions
from sixfold.data.augmentation.views import parse_views
from sixfold.data.formats.kept_columns import KeptColumns
from sixfold.data.run import told
from sixfold.data.spec import parse_spec
from sixfold.distributed.session import open_engine_for, restarts_of
from sixfold.prediction.config import PredictConfig
from sixfold.prediction.scoring import asked_data, scored_data, trained_network
from sixfold.prediction.sparse.choose import load_choice
from sixfold.prediction.worker import PredictJob, join_parts, predict_rank


def predict(config: PredictConfig, *, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Classify a data set with a trained network, into a Parquet file.

    The figures that ``FILE.json`` holds: number of images and, where there are labels, accuracy,
    per-class counts, confusion matrix and the worst mistakes.
    """
    started = time.monotonic()
    given, on_event = on_event, on_event or (lambda _: None)
    raise_problems(config.problems())
    asked = config.prediction
    place = checked_place(asked.out)
    if not asked.overwrite and is_foreign(place):
        raise UserError(
            f"--out {place}: there is a file that no prediction has written: choose another name, "
            "or replace it with --overwrite"
        )
    weights, card = trained_network(asked.run, asked.trust_model, given)
    parse_views(asked.tta, card.shape)
    sparse = None if asked.sparse is None else Path(asked.sparse).expanduser().absolute()
    if sparse is not None:
        load_choice(sparse)  # refused here rather than in every rank
    data = asked_data(asked, weights, card)
    kept = _kept_columns(config, data.data)
    opening = open_engine_for(config.engine, card.model, together=True)
    is_apart = config.engine.engine == "spark"
    with output_file(place, apart=is_apart) as out, opening as engine:
        workers = config.engine.workers or engine.slots()
        job, opened = scored_data(
            data,
            asked.split,
            weights,
            card,
            engine,
            workers,
            on_event,
            labelled=False,
        )
        if opened.bad:
            on_event({"kind": "note", "text": f"left out of the data: {told(opened.bad)}"})
        group = engine.run_ranks(
            functools.partial(
                predict_rank, PredictJob(parts=out.parts, sparse=sparse, tta=asked.tta, **job)
            ),
            workers,
            max_restarts=restarts_of(config.engine),
            on_event=_sum_up(on_event),
        )
        figures = join_parts(out.collected(), out.path, card, kept) | {
            "run": str(weights.parent),
            "data": data.data,
            "part": job["part"],
            "tta": asked.tta,
            "file": place,
            "bad_files": list(opened.bad),
            "skipped_images": opened.skipped,
            "workers": workers,
            "engine": config.engine.engine,
            "restarts": group.restarts,
            "wall_s": round(time.monotonic() - started, 3),
            "versions": versions(),
        }
        write_json(out.path.with_name(f"{out.path.name}.json"), figures)
        out.publish()
    return figures


def _kept_columns(config: PredictConfig, data: str) -> KeptColumns | None:
    asked = config.prediction
    others = [name.strip() for name in asked.keep_columns.split(",") if name.strip()]
    if asked.id_column is None and not others:
        return None
    spec = parse_spec(data)
    if spec.kind != "parquet":
        option = f"--id-column {asked.id_column}" if asked.id_column else "--keep-columns"
        raise UserError(f"{option}: only parquet:PATH has columns, and the data is {data}")
    return KeptColumns(spec.where, asked.id_column, others)


def _sum_up(on_event: OnEvent) -> Any:
    counts: dict[int, int] = {}

    def hear(rank: int, event: Any) -> None:
        if event.get("kind") == "predicted":
            counts[rank] = event["images"]
            on_event({"kind": "predicted", "images": sum(counts.values())})

    return hear
