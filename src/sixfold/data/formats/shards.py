"""Records of tensor shards, to be written again at another size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sixfold.data.dataset import Shape
from sixfold.data.manifest import PARTS, Manifest, load_manifest
from sixfold.data.records import ArrayPicture, Listing, Picture
from sixfold.data.shard_files import open_shard


def list_shards(path: Path) -> Listing:
    """List the records of a folder of shards."""
    manifest = load_manifest(path)
    parts = {part: _shard_records(path, manifest, part) for part in PARTS}
    return Listing(name=manifest.name, classes=manifest.classes, parts=parts, split="as before")


def _shard_records(path: Path, manifest: Manifest, part: str) -> ShardRecords:
    entries = manifest.parts[part]
    lengths = [entry.count for entry in entries]
    labels = [open_shard(path / entry.file, manifest.shape).labels for entry in entries]
    return ShardRecords(
        files=tuple(str(path / entry.file) for entry in entries),
        shape=manifest.shape,
        labels=np.concatenate([np.empty(0, np.int64), *labels]).astype(np.int64),
        file=np.repeat(np.arange(len(entries)), lengths),
        row=np.concatenate([np.empty(0, np.int64), *(np.arange(n) for n in lengths)]).astype(int),
    )


@dataclass(frozen=True, kw_only=True)
class ShardRecords:
    """Records of tensor shards, to be resized."""

    files: tuple[str, ...]
    shape: Shape
    labels: NDArray[np.int64]
    file: NDArray[np.int64]
    row: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> ShardRecords:
        """See `Records.take`."""
        used, places = np.unique(self.file[indices], return_inverse=True)
        return ShardRecords(
            files=tuple(self.files[number] for number in used),
            shape=self.shape,
            labels=self.labels[indices],
            file=places,
            row=self.row[indices],
        )

    @property
    def names(self) -> Sequence[str]:
        """See `Records`."""
        return self._texts("names")

    @property
    def groups(self) -> Sequence[str]:
        """See `Records`."""
        return self._texts("groups")

    def _texts(self, column: str) -> list[str]:
        opened = [open_shard(Path(file), self.shape) for file in self.files]
        return [
            getattr(opened[file], column)[int(row)].as_py()
            for file, row in zip(self.file, self.row, strict=True)
        ]

    def pictures(self) -> Iterator[Picture]:
        """See `Records.pictures`."""
        opened = [open_shard(Path(file), self.shape) for file in self.files]
        for file, row in zip(self.file, self.row, strict=True):
            yield ArrayPicture(opened[file].pixels[row])
