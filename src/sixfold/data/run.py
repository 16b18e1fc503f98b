"""The launcher of a preparation of images."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sixfold.core.errors import raise_problems
from sixfold.core.events import OnEvent
from sixfold.data.config import DataConfig, PrepareConfig
from sixfold.distributed.engines.engine import Engine
from sixfold.distributed.session import open_engine_for, pool_of


def prepare(config: PrepareConfig, *, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Turn a data set into tensor shards that load fast."""
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    preparation = config.preparation
    raise_problems(config.problems())

    from sixfold.data.preparation import prepare as make_shards
    from sixfold.data.spec import TableOptions

    with open_engine_for(config.engine) as engine:
        workers = config.engine.workers or engine.slots()
        manifest = make_shards(
            preparation.source,
            preparation.destination,
            resize=preparation.resize,
            on_bad=preparation.on_error,
            table=TableOptions(
                preparation.image_column,
                preparation.label_column,
                pixel_range=preparation.pixel_range,
                target=preparation.target,
                weight=preparation.weight_column,
            ),
            pool=pool_of(engine, workers),
            workers=workers,
            progress=lambda done, total: on_event(
                {"kind": "prepare", "done": done, "total": total}
            ),
        )
    spent = time.monotonic() - started
    images = {part: sum(file.count for file in files) for part, files in manifest.parts.items()}
    return {
        "destination": preparation.destination,
        "images": images,
        "classes": list(manifest.classes),
        "shape": list(manifest.shape),
        "pixels": manifest.source.get("pixels", ""),
        "bad_files": list(manifest.bad_lines()),
        "skipped_images": manifest.skipped,
        "workers": workers,
        "wall_s": round(spent, 3),
        "images_per_s": round(sum(images.values()) / spent, 1),
    }


def resolve_data(
    config: DataConfig, engine: Engine, workers: int, on_event: OnEvent, *, labelled: bool = True
) -> DataConfig:
    """Turn data into something that ranks can map, with the engine's workers where it is long."""
    from sixfold import data
    from sixfold.data.manifest import load_manifest

    found = data.resolve(
        config,
        pool=pool_of(engine, workers),
        workers=workers,
        progress=lambda done, total: on_event({"kind": "prepare", "done": done, "total": total}),
        labelled=labelled,
    )
    if config.data.startswith("parquet:") and config.pixel_range is None:
        manifest = load_manifest(Path(found.data.removeprefix("shards:")))
        if pixels := manifest.source.get("pixels"):
            on_event({"kind": "note", "text": f"{config.data}: {pixels}"})
    return found


def told(left_out: Sequence[str]) -> str:
    """The first of what is left out of a set, and how many more there are."""
    more = f"; and {len(left_out) - 3} more (see bad_files in the result)"
    return "; ".join(left_out[:3]) + (more if len(left_out) > 3 else "")
