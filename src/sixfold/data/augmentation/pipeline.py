"""What is done to the training images of logical shards, in which order, and with which draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.random_keys import key as key_of
from sixfold.data.augmentation.draws import Floats, below, uniform
from sixfold.data.augmentation.moves import Draws, draw_moves, mirror, shift
from sixfold.data.augmentation.registry import AUGMENTATIONS
from sixfold.data.augmentation.spec import Chosen, Images, Mix

BLOCK_BYTES = 1 << 18
"""Pixels that are changed at a time, so that what is computed with them stays in a cache."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to training images.

    Attributes:
        pad: pixels by which a crop may be moved to each side, the rest being black; 0: no crop.
        flip: whether half of the images are mirrored left to right.
        alternate: whether each image is mirrored in every other epoch.
        changes: what is done to each image then, in this order.
        mixes: how images of a shard are mixed at last; of several, each shard draws one.
    """

    pad: int = 0
    flip: bool = False
    alternate: bool = False
    changes: tuple[Chosen, ...] = ()
    mixes: tuple[Chosen, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is done."""
        return bool(self.pad or self._mirrors or self.changes or self.mixes)

    @property
    def _mirrors(self) -> bool:
        return self.flip or self.alternate

    @property
    def only_moves(self) -> bool:
        """Whether a device can do it from what was drawn: crops and flips alone."""
        return not (self.changes or self.mixes)

    def apply(self, images: Images, key: int, mean: NDArray[Any] | None = None) -> Images:
        """Change the images of one shard; see `apply_to_shards`. The same key, the same bits."""
        return self.apply_to_shards(images, [(len(images), key)], mean)

    def apply_to_shards(
        self,
        images: Images,
        shards: Sequence[tuple[int, int]],
        mean: NDArray[Any] | None = None,
        mirrored: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> Images:
        """Change every image by what was drawn for it; mixes are left to `mix`.

        Args:
            images: (n, C, H, W) of some shards, which may be overwritten.
            shards: images and key of each.
            mean: colour that erased boxes have, (C,); black if absent.
            mirrored: of each shard, which images `alternate` mirrors.
        """
        if self.pad or self._mirrors:
            flips = mirrored or [None] * len(shards)
            drawn = [self.draws(*each, own) for each, own in zip(shards, flips, strict=True)]
            down, right, chosen = (np.concatenate(values) for values in zip(*drawn, strict=True))
            if self.pad:
                images = shift(images, down, right)
            if self._mirrors:
                images = mirror(images, chosen)
        if mean is None:
            mean = np.zeros(images.shape[1], images.dtype)
        for change in self.changes:
            images = _changed(images, change, shards, mean)
        return images

    def draws(self, count: int, key: int, mirrored: NDArray[np.bool_] | None = None) -> Draws:
        """Crops and flips of so many images; nothing where it is not asked for."""
        drawn = draw_moves(count, key, pad=self.pad, flip=self.flip)
        if not self.alternate:
            return drawn
        assert mirrored is not None, "epoch and image decide it: see `mirrored_at_first`"
        return drawn._replace(mirrored=mirrored)

    def mix(self, count: int, size: tuple[int, int], key: int) -> Mix | None:
        """How the images of a shard are mixed; None if not at all.

        Args:
            count: images of the shard; one alone has no other to be mixed with.
            size: (H, W) of them.
            key: of the shard's draws.
        """
        if not self.mixes or count < 2:
            return None
        chosen = self.mixes[int(below(uniform(key_of(key, "mix"), 1, 1), len(self.mixes))[0, 0])]
        draw = AUGMENTATIONS[chosen.name].mix
        assert draw is not None, "by `parse_augment`"
        return draw(key_of(key, chosen.name), size, chosen.settings)


def _changed(
    images: Images, chosen: Chosen, shards: Sequence[tuple[int, int]], mean: NDArray[Any]
) -> Images:
    """Images after one change, a few at a time."""
    row = AUGMENTATIONS[chosen.name]
    assert row.change is not None, "by `parse_augment`"
    each = row.draws(chosen.settings)
    draws: Floats = np.concatenate(
        [uniform(key_of(key, chosen.name), count, each) for count, key in shards]
    )
    step = max(BLOCK_BYTES // images[0].nbytes, 1)
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        images[part] = row.change(images[part], draws[part], chosen.settings, mean)
    return images
