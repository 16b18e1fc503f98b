"""Classifying a data set with a trained network, by all ranks together, into one Parquet file.

Every rank classifies a contiguous run of chunks and writes what it found to a file of its own
beside the result; the launcher joins these files in the order of the ranks, so the result does
not depend on their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sixfold.core.errors import RunError
from sixfold.core.files import explained
from sixfold.core.output_file import part_file
from sixfold.data.formats.kept_columns import KeptColumns
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.prediction.columns import explain_not_finite, not_finite, outcome, schema, table
from sixfold.prediction.columns import figures as figures_of
from sixfold.prediction.scoring import ScoringJob, chosen_parts
from sixfold.prediction.sparse.choose import load_choice, sparse_network
from sixfold.training.averaged_views import with_views
from sixfold.training.evaluate import scored_chunks
from sixfold.training.layers.rewrites import folded_batch_norm, fused_max_pool, relu_behind_max_pool
from sixfold.training.model_card import ModelCard


@dataclass(frozen=True, kw_only=True)
class PredictJob(ScoringJob):
    """The same, and what becomes of the scores."""

    parts: str  # folder, or URL, for the ranks' files
    sparse: Path | None = None  # file of `sixfold sparse`, or None to run every layer dense


def predict_rank(job: PredictJob, comm: Communicator) -> dict[str, Any]:
    """Classify this rank's share and write it to a file."""
    with one_thread():
        network, card, data, maker = job.open()
        if job.sparse is not None:
            sparse_network(network, card.shape, load_choice(job.sparse))
        network = fused_max_pool(relu_behind_max_pool(folded_batch_norm(network)))
        network = with_views(network, job.tta)
        images = 0
        for number, part in enumerate(chosen_parts(data, job.part)):
            name = f"part-{number}-rank-{comm.rank:04d}.parquet"
            with (
                part_file(job.parts, name) as path,
                explained(path),
                pq.ParquetWriter(path, schema(card)) as writer,
            ):
                for start, stop, logits in scored_chunks(
                    comm, network, part, maker, last=job.sparse is None
                ):
                    rows = np.arange(start, stop)
                    writer.write_table(table(card, job.labels, part, rows, logits))
                    images += stop - start
                    comm.report({"kind": "predicted", "rank": comm.rank, "images": images})
        return {"images": images}


def with_kept(table: pa.Table, kept: KeptColumns | None) -> pa.Table:
    """The rows' own columns of the table that was read, if any are kept, behind their names."""
    if kept is None:
        return table
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
    odd: list[str] = []
    try:
        columns = with_kept(schema(card).empty_table(), kept).schema
        with explained(out), pq.ParquetWriter(temporary, columns) as writer:
            for found in _tables(parts):
                writer.write_table(with_kept(found, kept))
                rows.append(outcome(found, card))
                names = found.column("file").to_pylist()
                odd += [names[place] for place in np.flatnonzero(not_finite(found, card))]
                files += names
        if odd:
            raise RunError(explain_not_finite(len(odd), len(files), odd[0]))
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    figures: dict[str, Any] = {"images": len(files), "classes": list(card.classes)}
    if not rows:
        return figures
    return figures | figures_of(
        np.concatenate(rows), card, lambda indices: [files[index] for index in indices]
    )


def _tables(parts: Path) -> Iterator[pa.Table]:
    for path in sorted(parts.glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)
