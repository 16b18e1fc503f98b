"""What is to be prepared, and how: the settings, checked, and what names the result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from sixfold.core.errors import UserError
from sixfold.data import sources
from sixfold.data.config import MOST_SIDE
from sixfold.data.formats.cells import DEFAULT_SIZE
from sixfold.data.spec import Spec, TableOptions, parse_spec

LAYOUT = 2
"""Raised whenever the same source and settings would give other bytes."""

TABLE_LAYOUT = 1
"""The same for tables alone."""

ON_BAD = ("fail", "skip")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be prepared, and how."""

    spec: Spec  # the source
    path: str  # where the source was found
    fingerprint: str  # of what is there
    resize: int | None  # rows and columns, if not the images' own
    on_bad: str  # "fail" or "skip"
    table: TableOptions = field(default_factory=TableOptions)  # how a table is read

    @property
    def key(self) -> str:
        """Names the shards' bytes: another key means other shards."""
        parts = [LAYOUT, self.spec.kind, self.path, self.fingerprint, self.resize]
        if self.spec.kind == "parquet":
            parts += [TABLE_LAYOUT, self.table.image, self.table.label, self.table.labelled]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def setting_problems(*, resize: int | None, on_bad: str) -> list[str]:
    """What is wrong with the settings; empty if nothing."""
    problems = []
    if resize is not None and not 0 < resize <= MOST_SIDE:
        problems.append(f"--resize {resize}: expected 1 to {MOST_SIDE} pixels")
    if on_bad not in ON_BAD:
        problems.append(f"--on-error {on_bad!r}: expected {' or '.join(ON_BAD)}")
    return problems


def column_problems(source: str, table: TableOptions) -> list[str]:
    """Columns that are named though the data is no table."""
    if source.partition(":")[0] == "parquet":
        return []
    given = {"--image-column": table.image, "--label-column": table.label}
    return [
        f"{option} {name}: only parquet:PATH has columns, and the data is {source}"
        for option, name in given.items()
        if name is not None
    ]


def plan(source: str, *, resize: int | None, on_bad: str, table: TableOptions | None = None) -> Job:
    """Find the source, and check the settings."""
    table = table or TableOptions()
    problems = setting_problems(resize=resize, on_bad=on_bad) + column_problems(source, table)
    try:
        spec = parse_spec(source)
        path = sources.locate(spec)
        fingerprint = sources.source_fingerprint(spec, path)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    if spec.kind == "cells" and resize is None:
        resize = DEFAULT_SIZE
    return Job(
        spec=spec, path=path, fingerprint=fingerprint, resize=resize, on_bad=on_bad, table=table
    )
