"""Training images that are read anew in each epoch, for a data set with random transforms.

Item i of epoch e is read with the generators of Python, NumPy and torch keyed by (seed, e, i), so
it is the same whichever rank reads it, and whatever was read before. Those generators are the
process's own, so images are read where the step is computed and not ahead of it in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.core.random_keys import key
from sixfold.data.arrays import PixelReader
from sixfold.data.dataset import Part, Shape
from sixfold.data.images import BadImageError, Pixels
from sixfold.data.items import generators, pixels_of, split_item
from sixfold.data.shard_building import COLOR, GRAY


def item_key(seed: int, epoch: int, index: int) -> int:
    """What the generators follow from while an item is read."""
    return key(seed, "item", epoch, index)


@dataclass(frozen=True)
class Reread:
    """A packed data set.

    Attributes:
        name: of the packed data set.
        shape: of every image, C H W.
        settings: of the first reading, as the manifest of its shards has them.
    """

    name: str
    shape: Shape
    settings: Mapping[str, Any]

    @cached_property
    def _items(self) -> Any:
        from sixfold.models.objects import open_object

        return open_object(self.name, "--reread")

    def images(self, part: Part, indices: NDArray[np.int64], seed: int, epoch: int) -> NDArray[Any]:
        """Images of a part as an epoch has them, (n, C, H, W), of the part's dtype.

        Raises:
            UserError: if one cannot be read, or is of another shape than at first.
        """
        out = np.empty((len(indices), *self.shape), part.dtype)
        for target, name in zip(out, part.names(indices), strict=True):
            target[...] = self._image(int(name.partition("[")[2].rstrip("]")), seed, epoch)
        return out

    def _image(self, index: int, seed: int, epoch: int) -> Pixels:
        reader = PixelReader()
        reader.scale = self.settings.get("scale")
        try:
            with generators(item_key(seed, epoch, index)):
                item = self._items[index]
            value, _ = split_item(
                item, index, self.settings.get("image_column"), self.settings.get("label_column")
            )
            image = pixels_of(value, reader, self.settings.get("resize"))
        except BadImageError as error:
            raise UserError(f"data: item {index} of epoch {epoch}: {error.reason}") from error
        except UserError as error:
            raise UserError(f"data: item {index}: {line}" for line in error.problems) from error
        if image.shape[0] == GRAY and self.shape[0] == COLOR:
            image = np.repeat(image, COLOR, axis=0)
        if image.shape != self.shape:
            raise UserError(
                f"data: item {index} of epoch {epoch} is an image of "
                f"{'x'.join(map(str, image.shape))}, and was {'x'.join(map(str, self.shape))} "
                "at first: let the transform give one size, or give resize="
            )
        return image
