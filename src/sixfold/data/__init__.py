"""Data sets: from a specification such as ``cifar10:PATH`` to batches of tensors.

>>> from sixfold.data.config import DataConfig
>>> from sixfold.data import open_data, resolve
>>> dataset = open_data(resolve(DataConfig(data="synthetic:100x3x8x8", validation=0.2)))
>>> len(dataset.train), len(dataset.validation), len(dataset.test), dataset.shape
(80, 20, 20, (3, 8, 8))
"""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.data.augmentation.grammar import parse_augment as parse_augment
    from sixfold.data.augmentation.pipeline import Augment as Augment
    from sixfold.data.batches import BatchMaker as BatchMaker
    from sixfold.data.dataset import DataSet as DataSet
    from sixfold.data.dataset import Part as Part
    from sixfold.data.prefetching import prefetch as prefetch
    from sixfold.data.preparation import prepare as prepare
    from sixfold.data.registry import content_fingerprint as content_fingerprint
    from sixfold.data.registry import open_data as open_data
    from sixfold.data.registry import resolve as resolve
    from sixfold.data.registry import source_fingerprint as source_fingerprint
    from sixfold.data.spec import absolute_spec as absolute_spec
    from sixfold.data.splits import permutation as permutation

__getattr__ = lazy(
    __name__,
    {
        "augmentation.grammar": ("parse_augment",),
        "augmentation.pipeline": ("Augment",),
        "batches": ("BatchMaker",),
        "dataset": ("DataSet", "Part"),
        "prefetching": ("prefetch",),
        "preparation": ("prepare",),
        "registry": ("content_fingerprint", "open_data", "resolve", "source_fingerprint"),
        "spec": ("absolute_spec",),
        "splits": ("permutation",),
    },
)
