"""Data sets: from a specification such as ``cifar10:PATH`` to batches of tensors.

>>> from sixfold.data.config import DataConfig
>>> dataset = open_data(resolve(DataConfig(data="synthetic:100x3x8x8", validation=0.2)))
>>> len(dataset.train), len(dataset.validation), len(dataset.test), dataset.shape
(80, 20, 20, (3, 8, 8))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.data.augment import Augment, parse_augment
    from sixfold.data.batches import BatchMaker, make_batch
    from sixfold.data.dataset import DataSet, Part, Sums
    from sixfold.data.prefetching import prefetch
    from sixfold.data.preparation import prepare
    from sixfold.data.registry import (
        content_fingerprint,
        open_data,
        resolve,
        source_fingerprint,
    )
    from sixfold.data.spec import absolute_spec
    from sixfold.data.splits import permutation

__all__ = [
    "Augment",
    "BatchMaker",
    "DataSet",
    "Part",
    "Sums",
    "absolute_spec",
    "content_fingerprint",
    "make_batch",
    "open_data",
    "parse_augment",
    "permutation",
    "prefetch",
    "prepare",
    "resolve",
    "source_fingerprint",
]

__getattr__ = lazy(
    __name__,
    {
        "Augment": "augment",
        "BatchMaker": "batches",
        "DataSet": "dataset",
        "Part": "dataset",
        "Sums": "dataset",
        "absolute_spec": "spec",
        "content_fingerprint": "registry",
        "make_batch": "batches",
        "open_data": "registry",
        "parse_augment": "augment",
        "permutation": "splits",
        "prefetch": "prefetching",
        "prepare": "preparation",
        "resolve": "registry",
        "source_fingerprint": "registry",
    },
)
