"""Records of sets that are in memory or made up, to be written as shards like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sixfold.data.dataset import Store
from sixfold.data.manifest import PARTS
from sixfold.data.records import ArrayPicture, Chunk, Listing, Picture


def list_stores(name: str, classes: tuple[str, ...], stores: Sequence[Store]) -> Listing:
    """List the records of two picklable stores, one for each part."""
    parts = {
        part: StoreRecords(store, np.arange(len(store.labels)))
        for part, store in zip(PARTS, stores, strict=True)
    }
    return Listing(name=name, classes=classes, parts=parts, split="80/20")


@dataclass(frozen=True)
class StoreRecords:
    """Records of a picklable store."""

    store: Store
    indices: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Records`."""
        return self.store.labels[self.indices]

    def take(self, indices: NDArray[np.int64]) -> StoreRecords:
        """See `Records.take`."""
        return StoreRecords(self.store, self.indices[indices])

    def chunk(self, start: int, stop: int) -> Chunk:
        """See `Records.chunk`."""
        return StoreChunk(self.store, self.indices[start:stop])


@dataclass(frozen=True)
class StoreChunk:
    """A chunk of `StoreRecords`."""

    store: Store
    indices: NDArray[np.int64]

    @property
    def names(self) -> Sequence[str]:
        """See `Chunk`."""
        return self.store.names(self.indices)

    @property
    def labels(self) -> Sequence[int]:
        """See `Chunk`."""
        return [int(label) for label in self.store.labels[self.indices]]

    @property
    def groups(self) -> Sequence[str]:
        """None of them."""
        return [""] * len(self.indices)

    def pictures(self) -> Iterator[Picture]:
        """See `Chunk.pictures`."""
        for image in self.store.images(self.indices):
            yield ArrayPicture(image)
