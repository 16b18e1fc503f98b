"""Spark DataFrames as data of `sixfold.train`: their executors write them as tensor shards."""

from collections.abc import Mapping
from typing import Any

from sixfold.core.events import OnEvent
from sixfold.data.config import DataConfig


def is_frame(data: Any) -> bool:
    """Whether something is a DataFrame of Spark, classic or Connect."""
    return type(data).__module__.partition(".")[0] == "pyspark"


def write_frames(
    parts: Mapping[str, Any], config: DataConfig, out: str | None, on_event: OnEvent
) -> dict[str, str]:
    """Write the DataFrames among some parts.

    Args:
        parts: what was given as "data", "validation" and "test".
        config: how tables are read.
        out: the run directory, if one was named.
        on_event: told what was written.

    Returns:
        Specifications in place of the DataFrames: one for all, under "data", if there is nothing
        else; else one for each.

    Raises:
        UserError: with everything that keeps the rows from being a usable set.
    """
    from sixfold.spark.preparation import TableSettings, root_of, write_shards
    from sixfold.spark.table import refuse_other_tables

    frames = {what: data for what, data in parts.items() if is_frame(data)}
    for data in frames.values():
        refuse_other_tables(data)
    settings = TableSettings(
        image=config.image_column,
        label=config.label_column,
        weight=config.weight_column,
        kind=config.target,
        pixel_range=config.pixel_range,
        resize=config.resize,
        skip=config.on_error == "skip",
    )
    root = root_of(next(iter(frames.values())).sparkSession, out)
    sets = {what: {"train": data} for what, data in frames.items()}
    if "data" in frames and len(frames) == len(parts):
        sets = {"data": {"train": frames.pop("data"), **frames}}
    found = {}
    for what, each in sets.items():
        written = write_shards(each, root, settings)
        found[what] = written.data
        told = f"{written.rows} rows, of which {written.decoded} images were decoded now"
        on_event({"kind": "note", "text": f"{what}: {told}: {written.data}"})
    return found
