"""Coding images with a learned dictionary, some at a time, into a table of sparse codes.

Every image, or every movie where codes are carried from frame to frame, is coded independently of
all others, so parts may be cut and spread over workers in any way: the table is the same.

Columns: `name`, `steps`, `done`, `energy`, `error` (|x - D a|^2 / |x|^2), `active`, `gap`,
`violation`, and the code as `indices` (place in K x P x Q, ascending) and `values`. Its shape, the
dictionary's hash and the threshold are in the schema's metadata under ``sixfold.lca``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from sixfold.core.files import space_explained
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.dictionary import Learned, load_dictionary
from sixfold.lca.inputs import ImageSource, OpenedImages, open_images
from sixfold.lca.interaction import LateralInhibition
from sixfold.lca.solver import Solution, Solver
from sixfold.training.checkpoint import weights_sha256

TRACE = ("element", "step", "energy", "squares", "active", "gap", "violation", "rate")
COLUMNS = ("steps", "done", "energy", "error", "active", "gap", "violation")
SUMS = ("energy", "squares", "active", "steps", "done")


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """What the launcher hands to the workers."""

    dictionary: Path  # its file
    dynamics: DynamicsConfig
    source: ImageSource
    parts: Path  # folder for the parts of the table
    frames: bool  # whether each part is a movie whose frames follow each other
    trace: bool  # whether to write all readings


def encode_part(job: EncodeJob, part: tuple[int, int, int]) -> dict[str, float]:
    """Code one part (its number, first and one-past-last image); sums over its images."""
    number, start, stop = part
    with one_thread():
        learned = load_dictionary(job.dictionary)
        opened = open_images(job.source)
        indices = np.arange(start, stop, dtype=np.int64)
        images = learned.preprocess(opened.pixels(indices), learned.atoms.dtype)
        solver = Solver(
            LateralInhibition(learned.atoms, learned.geometry, form=job.dynamics.form), job.dynamics
        )
        solutions: list[Solution] = []
        for piece in [image[None] for image in images] if job.frames else [images]:
            # Each frame begins with the code of the one before.
            before = [solutions[-1].codes[0]] if solutions else None
            solutions.append(solver.solve(piece, start=before, trace=job.trace))
    power = images.flatten(1).double().square().sum(1)
    with space_explained(job.parts):
        parquet.write_table(
            _table(opened, indices, solutions, power), job.parts / f"part-{number:06d}.parquet"
        )
        if job.trace:
            rows = _trace_rows(solutions, start)
            parquet.write_table(
                pa.table({name: [row[name] for row in rows] for name in TRACE}),
                job.parts / f"trace-{number:06d}.parquet",
            )
    sums = {name: float(_joined(solutions, name).double().sum()) for name in SUMS}
    return {**sums, "power": float(power.sum()), "images": float(len(indices))}


def _trace_rows(solutions: Sequence[Solution], start: int) -> list[dict[str, Any]]:
    rows, first = [], start
    for solution in solutions:
        rows += [{**row, "element": first + row["element"]} for row in solution.trace]
        first += len(solution.steps)
    return rows


def _table(
    opened: OpenedImages, indices: Any, solutions: Sequence[Solution], power: Tensor
) -> pa.Table:
    places, values = [], []
    for solution in solutions:
        for code in solution.codes:
            flat = code.reshape(-1).numpy()
            places.append(np.flatnonzero(flat).astype(np.int32))
            values.append(flat[places[-1]])
    column = {
        name: _joined(solutions, name).numpy()
        for name in ("steps", "done", "energy", "squares", "active", "gap", "violation")
    }
    column["error"] = column["squares"] / np.maximum(power.numpy(), 1e-300)
    number = pa.float64() if values[0].dtype == np.float64 else pa.float32()
    return pa.table(
        {
            "name": opened.names(indices),
            **{name: column[name] for name in COLUMNS},
            "indices": pa.array(places, pa.list_(pa.int32())),
            "values": pa.array(values, pa.list_(number)),
        }
    )


def _joined(solutions: Sequence[Solution], name: str) -> Tensor:
    return torch.cat([getattr(solution, name) for solution in solutions])


def join_parts(job: EncodeJob, learned: Learned, out: Path) -> None:
    """Make one file of all parts: Arrow if its name says so, else Parquet."""
    card = {
        "shape": [learned.geometry.atoms, *learned.geometry.positions],
        "dictionary_sha256": weights_sha256({"atoms": learned.atoms}),
        "threshold": job.dynamics.lambda_,
    }
    for stem, target in (("part", out), ("trace", out.with_name(out.name + ".trace.parquet"))):
        files = sorted(job.parts.glob(f"{stem}-*.parquet"))
        if not files:
            continue
        schema = parquet.read_schema(files[0]).with_metadata({"sixfold.lca": json.dumps(card)})
        temporary = job.parts / f"{stem}.whole"
        is_arrow = target.suffix in (".arrow", ".feather")
        make = pa.ipc.new_file if is_arrow else parquet.ParquetWriter
        with make(str(temporary), schema) as writer:
            for part in files:
                writer.write_table(parquet.read_table(part).cast(schema))
        temporary.replace(target)
