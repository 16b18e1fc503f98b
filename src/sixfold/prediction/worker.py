"""Classifying a data set with a trained network, by all ranks together, into one Parquet file.

Every rank classifies a contiguous run of chunks and writes what it found to a file of its own
beside the result; the launcher joins these files in the order of the ranks, so the result does
not depend on their number.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from sixfold import data as datasets
from sixfold.core.files import explained
from sixfold.data.formats.kept_columns import KeptColumns
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.prediction.scoring import ScoringJob, chosen_parts
from sixfold.prediction.sparse.choose import load_choice, sparse_network
from sixfold.training import metrics
from sixfold.training.evaluate import scored_chunks
from sixfold.training.layers.rewrites import folded_batch_norm, fused_max_pool, relu_behind_max_pool
from sixfold.training.model_card import ModelCard


@dataclass(frozen=True, kw_only=True)
class PredictJob(ScoringJob):
    """The same, and what becomes of the scores."""

    parts: Path  # folder for the ranks' files
    sparse: Path | None = None  # file of `sixfold sparse`, or None to run every layer dense


def predict_rank(job: PredictJob, comm: Communicator) -> dict[str, Any]:
    """Classify this rank's share and write it to a file."""
    with one_thread():
        network, card, data, maker = job.open()
        if job.sparse is not None:
            sparse_network(network, card.shape, load_choice(job.sparse))
        network = fused_max_pool(relu_behind_max_pool(folded_batch_norm(network)))
        images = 0
        for number, part in enumerate(chosen_parts(data, job.part)):
            path = job.parts / f"part-{number}-rank-{comm.rank:04d}.parquet"
            with explained(path), pq.ParquetWriter(path, schema(card)) as writer:
                for start, stop, logits in scored_chunks(
                    comm, network, part, maker, last=job.sparse is None
                ):
                    writer.write_table(_table(job, card, part, np.arange(start, stop), logits))
                    images += stop - start
                    comm.report({"kind": "predicted", "rank": comm.rank, "images": images})
        return {"images": images}


def schema(card: ModelCard) -> pa.Schema:
    """Columns of the result: file, part, label, true_label, confidence, score_<class> ..."""
    return pa.schema(
        [
            ("file", pa.string()),
            ("label", pa.string()),
            ("true_label", pa.string()),
            ("confidence", pa.float32()),
            *((f"score_{name}", pa.float32()) for name in card.classes),
        ],
        metadata={"classes": json.dumps(card.classes)},
    )


def _table(
    job: PredictJob,
    card: ModelCard,
    part: datasets.Part,
    indices: NDArray[np.int64],
    logits: torch.Tensor,
) -> pa.Table:
    scores = logits.softmax(1).float().numpy()
    predicted = scores.argmax(1)
    truth = [_true_name(job, card, int(label)) for label in part.labels[indices]]
    columns = [
        pa.array(part.names(indices)),
        pa.array([card.classes[label] for label in predicted]),
        pa.array(truth, pa.string()),
        pa.array(scores[np.arange(len(indices)), predicted]),
        *(pa.array(np.ascontiguousarray(column)) for column in scores.T),
    ]
    return pa.Table.from_arrays(columns, schema=schema(card))


def _true_name(job: PredictJob, card: ModelCard, label: int) -> str | None:
    known = job.labels[label] if 0 <= label < len(job.labels) else -1
    return card.classes[known] if known >= 0 else None


def with_kept(table: pa.Table, kept: KeptColumns) -> pa.Table:
    """The rows' own columns of the table that was read, behind their names."""
    values = kept.of(table.column("file").to_pylist())
    for place, (name, column) in enumerate(zip(kept.names, values, strict=True), 1):
        while name in table.column_names:
            name = f"input_{name}"
        table = table.add_column(place, name, column)
    return table


def join_parts(
    parts: Path, out: Path, card: ModelCard, kept: KeptColumns | None = None
) -> dict[str, Any]:
    """Join the ranks' files into one; its figures, where there are labels those of `metrics`."""
    temporary = out.with_name(f".{out.name}.tmp")
    rows: list[NDArray[Any]] = []
    files: list[str] = []
    try:
        columns = (
            schema(card) if kept is None else with_kept(schema(card).empty_table(), kept).schema
        )
        with explained(out), pq.ParquetWriter(temporary, columns) as writer:
            for table in _tables(parts):
                writer.write_table(table if kept is None else with_kept(table, kept))
                rows.append(_outcome(table, card))
                files += table.column("file").to_pylist()
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
        for path in parts.glob("part-*.parquet"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            parts.rmdir()
    whole = np.concatenate(rows) if rows else np.empty((0, 4))
    figures: dict[str, Any] = {"images": len(whole), "classes": list(card.classes)}
    labelled = np.flatnonzero(whole[:, 0] >= 0)
    if len(labelled):
        known = whole[labelled]
        figures["labelled_images"] = len(labelled)
        figures |= metrics.summarize(
            known[:, 0].astype(np.int64),
            known[:, 1].astype(np.int64),
            known[:, 2],
            known[:, 3].astype(bool),
            classes=card.classes,
            names=lambda indices: [files[labelled[index]] for index in indices],
            part="",
        )
    return figures


def _tables(parts: Path) -> Iterator[pa.Table]:
    for path in sorted(parts.glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)


def _outcome(table: pa.Table, card: ModelCard) -> NDArray[Any]:
    """Per image: true class (-1 if unknown), predicted class, confidence, hit among five best."""
    numbers = {name: number for number, name in enumerate(card.classes)}
    truth = np.array([numbers.get(name, -1) for name in table.column("true_label").to_pylist()])
    predicted = np.array([numbers[name] for name in table.column("label").to_pylist()])
    scores = np.stack([table.column(f"score_{name}").to_numpy() for name in card.classes], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    confidence = table.column("confidence").to_numpy()
    return np.stack([truth, predicted, confidence, (best == truth[:, None]).any(1)], axis=1)
