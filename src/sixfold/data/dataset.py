"""What a data set looks like once it is open: three parts, and the statistics of the first.

A `Store` holds records and reads any of them; a `Part` is a store, or a choice of its records. The
mean and standard deviation come from exact sums over the training part alone, so they depend
neither on the order of the images nor on anything that is evaluated on.

Pixels have 8 bits, or are float32 numbers of any range, as a scanner or a user's own transforms
give them: those are kept as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.data.pixel_sums import Sums, sums_of
from sixfold.data.splits import cut, some, strata
from sixfold.data.targets import BINARY, CLASSES, REGRESSION, outputs_of

if TYPE_CHECKING:
    from sixfold.data.reread import Reread

ALL_TRAIN = "all images are for training, as asked"
"""How the parts of a set are told apart that has no test part, and should have none."""

UNLABELLED = "(unlabelled)"
"""Name of the last class where some images have none: they are only ever predicted."""

Shape = tuple[int, int, int]  # Channels, rows and columns of one image: C H W


class Store(Protocol):
    """Records that can be read by index, without holding all their pixels in memory."""

    @property
    def shape(self) -> Shape: ...

    @property
    def labels(self) -> NDArray[np.int64]: ...

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """(N, K) numbers, or 0 and 1 of labels; None where records have a class."""
        ...

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """How much every record counts, (N,); None: all the same."""
        ...

    @property
    def groups(self) -> NDArray[np.int64] | None: ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels: uint8, or float32 for numbers of any range."""
        ...

    def images(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Pixels of the records, (n, C, H, W), C-contiguous and the caller's own."""
        ...

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """File or record names, for reports."""
        ...

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        """Exact sums over the pixels of the records."""
        ...


@dataclass(frozen=True)
class ArrayStore:
    """Records held in memory: for sets that are small anyway."""

    pixels: NDArray[Any]  # (N, C, H, W)
    labels: NDArray[np.int64]
    record_names: Sequence[str]
    groups: NDArray[np.int64] | None = None
    targets: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None

    @property
    def shape(self) -> Shape:
        """C H W."""
        channels, rows, columns = self.pixels.shape[1:]
        return channels, rows, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.pixels.dtype

    def images(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self.pixels[indices]

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        return [self.record_names[index] for index in indices]

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        return sums_of(self.pixels[indices])


class Part:
    """A store, or those of its records that are chosen, in their order."""

    def __init__(
        self, store: Store, chosen: NDArray[np.int64] | None = None, kind: str = CLASSES
    ) -> None:
        self._store, self.kind = store, kind
        self._chosen = chosen
        # class of each image, (N,)
        self.labels: NDArray[np.int64] = store.labels if chosen is None else store.labels[chosen]
        # see `Store`
        self.targets, self.weights = (
            value if value is None or chosen is None else value[chosen]
            for value in (store.targets, store.weights)
        )
        self.shape: Shape = store.shape  # of each image, C H W
        self.dtype = store.dtype  # of the pixels

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Pixels (n, C, H, W), the caller's own, of places in this part in any order."""
        return self._store.images(self._stored(indices))

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """File or record names, such as ``train/cat/0001.jpg`` or ``digits[17]``."""
        return self._store.names(self._stored(indices))

    @cached_property
    def files(self) -> NDArray[np.int64] | None:
        """Number of the file that each image lies in, (N,); None where the store has no files."""
        found: NDArray[np.int64] | None = getattr(self._store, "files", None)
        return found if found is None or self._chosen is None else found[self._chosen]

    def expect(self, windows: Sequence[Sequence[int]]) -> None:
        """Say which files will be read next, to a store that fetches them."""
        if hasattr(self._store, "expect"):
            self._store.expect(windows)

    def sums(self) -> Sums:
        """Exact sums over all pixels of this part."""
        return self._store.sums(self._stored(np.arange(len(self), dtype=np.int64)))

    def _stored(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        indices = np.asarray(indices, np.int64)
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"image {int(indices.max())} of a part of {len(self)}")
        return indices if self._chosen is None else self._chosen[indices]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """An open data set."""

    name: str
    classes: tuple[str, ...]
    shape: Shape  # of every image, C H W
    train: Part  # what may be learned from
    validation: Part  # what may be selected on; empty unless asked for
    test: Part  # what is only ever reported
    # files that were left out because they could not be read, each with the reason
    bad: tuple[str, ...] = ()
    skipped: int = 0  # images that were left out: a line of `bad` may speak of many
    # whether the set came with its test part, rather than having one cut off it
    own_test: bool = True
    split: str = ""  # how its parts were told apart, for people
    kind: str = CLASSES  # of targets; `classes` then names classes, labels or numbers
    reread: Reread | None = None  # from which training images are read anew in each epoch
    pixel_range: str = ""  # of the floating-point pixels that it was made of
    # of the pixels of `train` over their full scale, (C,)
    mean: NDArray[np.float64] = field(init=False)
    # of the pixels of `train` over their full scale, (C,)
    std: NDArray[np.float64] = field(init=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels: uint8, or float32 for numbers of any range."""
        return self.train.dtype

    @property
    def ahead(self) -> int:
        """How many batches may be read ahead, in a thread."""
        return 4 if self.reread is None else 0

    def __post_init__(self) -> None:
        sums = self.train.sums()
        object.__setattr__(self, "mean", sums.mean())
        object.__setattr__(self, "std", sums.std())

    @property
    def outputs(self) -> int:
        """How many numbers a network gives for an image."""
        return outputs_of(self.kind, len(self.classes))


def _both(
    first: NDArray[np.float64] | None, second: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    return None if first is None or second is None else np.concatenate([first, second])


@dataclass(frozen=True)
class _Joined:
    """Two stores as one: the records of the first, then those of the second."""

    first: Store
    second: Store

    @property
    def shape(self) -> Shape:
        return self.first.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.first.dtype

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.concatenate([self.first.labels, self.second.labels])

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """Of all records."""
        return _both(self.first.targets, self.second.targets)

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """Of all records."""
        return _both(self.first.weights, self.second.weights)

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Of all records: a set that is cut by groups has none on both sides."""
        if self.first.groups is None or self.second.groups is None:
            return None
        return np.concatenate(
            [self.first.groups, self.second.groups + self.first.groups.max(initial=-1) + 1]
        )

    def images(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        out = np.empty((len(indices), *self.shape), self.dtype)
        for chosen, store, places in self._sides(indices):
            out[chosen] = store.images(places)
        return out

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        found = [""] * len(indices)
        for chosen, store, places in self._sides(indices):
            for place, name in zip(chosen, store.names(places), strict=True):
                found[place] = name
        return found

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        first, second = (store.sums(places) for _, store, places in self._sides(indices))
        return first + second

    def _sides(
        self, indices: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.int64], Store, NDArray[np.int64]]]:
        """For each store: which of the indices are its own, and where those records are in it."""
        count = len(self.first.labels)
        late = indices >= count
        mine, others = np.flatnonzero(~late), np.flatnonzero(late)
        return [
            (mine, self.first, indices[mine]),
            (others, self.second, indices[others] - count),
        ]


def _shares(kind: str) -> str:
    """What a part has its share of, for people."""
    if kind in (CLASSES, BINARY):
        return "stratified by class"
    return "of every range of numbers" if kind == REGRESSION else "stratified by label"


def assemble(
    *,
    name: str,
    classes: tuple[str, ...],
    train: Store,
    test: Store,
    validation: float = 0.0,
    test_split: float | None = None,
    images: int | None = None,
    bad: tuple[str, ...] = (),
    skipped: int = 0,
    own_test: bool = True,
    split: str = "",
    own_validation: Store | None = None,
    kind: str = CLASSES,
    reread: Reread | None = None,
    pixel_range: str = "",
) -> DataSet:
    """A data set from its stores; `validation` is cut from the first, by class and group.

    With `test_split` the test part is cut anew, from both stores together (with 0 there is none);
    `validation` then from what is left. Of what is left for training, `images` are kept.
    """
    last = len(classes) - 1 if classes[-1:] == (UNLABELLED,) else len(classes)
    if test_split is not None and (test.labels < last).any() and not split.startswith("80/20"):
        raise UserError(
            f"--test-split {test_split:g}: the set has a test part of its own of "
            f"{len(test.labels)} images{f' ({split})' if split else ''}: leave the option out"
        )
    if own_validation is not None and validation:
        raise UserError(
            f"--validation {validation:g}: the set has a validation part of its own of "
            f"{len(own_validation.labels)} images: leave the option out"
        )
    whole: Store = train if test_split is None else joined(train, test)
    # What has no label stays where it can be predicted, and alters no other row's part.
    aside = whole.labels >= last
    known = np.flatnonzero(~aside)
    groups = None if whole.groups is None else whole.groups[known]
    layers = np.zeros(len(aside), np.int64)
    targets = None if whole.targets is None else whole.targets[known]
    layers[known] = strata(whole.labels[known], targets, kind)
    aside[known] = cut(layers[known], test_split or 0.0, groups=groups, purpose="test")
    rest = np.flatnonzero(~aside)
    if test_split and not aside.any():
        raise UserError(
            f"--test-split {test_split:g}: of {len(aside)} images none can be set aside: every "
            "class needs at least two"
        )
    groups = None if whole.groups is None else whole.groups[rest]
    held_out = cut(layers[rest], validation, groups=groups, purpose="validation")
    if validation and not held_out.any():
        raise UserError(
            f"--validation {validation:g}: of {len(rest)} training images none can be set "
            "aside: every class needs at least two"
        )
    kept = rest[~held_out]
    if images is not None:
        if images > len(kept):
            raise UserError(f"--max-images {images}: there are only {len(kept)} to train on")
        kept = kept[some(layers[kept], images)]
    return DataSet(
        name=name,
        classes=classes,
        shape=train.shape,
        train=Part(whole, None if len(kept) == len(whole.labels) else kept, kind),
        validation=(
            Part(whole, rest[held_out], kind)
            if own_validation is None
            else Part(own_validation, None, kind)
        ),
        test=(
            Part(test, None, kind)
            if test_split is None
            else Part(whole, np.flatnonzero(aside), kind)
        ),
        bad=bad,
        skipped=skipped,
        reread=reread,
        pixel_range=pixel_range,
        own_test=own_test and len(test.labels) > 0,
        split=split if test_split is None else _cut_off(test_split, kind),
        kind=kind,
    )


def _cut_off(test_split: float, kind: str) -> str:
    """How the test part was made, for people."""
    return f"{test_split:g} set aside, {_shares(kind)}" if test_split else ALL_TRAIN


def joined(first: Store, second: Store) -> Store:
    """Two stores as one; where both are ordered by keys, so is the whole."""
    if not len(second.labels):  # an empty part does not tell whether it would have targets
        return first
    if isinstance(first, OrderedStore) and isinstance(second, OrderedStore):
        return OrderedStore(
            _Joined(first.store, second.store),
            np.concatenate([first.keys, second.keys]),
            np.concatenate([first.order, second.order + len(first.keys)]),
        )
    return _Joined(first, second)


@dataclass(frozen=True)
class OrderedStore:
    """A store whose records, or those that are chosen, come in the order of their keys."""

    store: Store
    keys: NDArray[np.str_]  # of each record, in the store's own order, (N,)
    chosen: NDArray[np.int64] | None = None  # places in the store, perhaps several times; None: all

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Place in the store of each record, (N,)."""
        if self.chosen is None:
            return np.argsort(self.keys, kind="stable")
        return self.chosen[np.argsort(self.keys[self.chosen], kind="stable")]

    @property
    def shape(self) -> Shape:
        """C H W."""
        return self.store.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.store.dtype

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of all records."""
        return self.store.labels[self.order]

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """Of all records, if there are any."""
        return None if self.store.targets is None else self.store.targets[self.order]

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """Of all records, if there are any."""
        return None if self.store.weights is None else self.store.weights[self.order]

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Of all records, if there are any."""
        groups = self.store.groups
        return None if groups is None else groups[self.order]

    @property
    def files(self) -> NDArray[np.int64] | None:
        """Number of the file of each record, (N,)."""
        found: NDArray[np.int64] | None = getattr(self.store, "files", None)
        return None if found is None else found[self.order]

    def expect(self, windows: Sequence[Sequence[int]]) -> None:
        if hasattr(self.store, "expect"):
            self.store.expect(windows)

    def images(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self.store.images(self.order[indices])

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        return self.store.names(self.order[indices])

    def sums(self, indices: NDArray[np.int64]) -> Sums:
        return self.store.sums(self.order[indices])
