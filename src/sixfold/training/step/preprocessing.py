"""Images made ready on a device: crops, flips and normalisation with the host's numbers.

A rank that computes on a GPU sends it pixels, a quarter of what normalised images take, and what
was drawn for them. The draws are the host's (`sixfold.data.augmentation`), pixels are only moved,
and normalisation is the same product and the same sum of the same float numbers, each rounded: so
the images have the bits that they would have on the host. All other augmentations but the blend of
MixUp are the host's.

Legend: n images of C channels, H rows, W columns.
"""

import torch
from torch import Tensor

from sixfold.data.augmentation.moves import Draws
from sixfold.data.augmentation.spec import Mix
from sixfold.data.batches import BatchMaker


class DevicePreprocessing:
    """Makes pixels into what the network is fed.

    Args:
        make_batch: knows by what images are normalised.
        pad: pixels by which a crop may be moved to each side.
        device: where.
    """

    def __init__(self, make_batch: BatchMaker, pad: int, device: torch.device) -> None:
        self._scale, self._shift = (
            torch.from_numpy(factor).to(device) for factor in make_batch.factors
        )
        self._pad, self._device = pad, device

    def ready(self, pixels: Tensor, draws: Draws | None, mix: Mix | None = None) -> Tensor:
        """Crop, flip, normalise, and blend.

        Args:
            pixels: (n, C, H, W) uint8, on the host; pinned memory is read while the host goes on.
            draws: what is done to them, or None.
            mix: how they are blended with each other, or None.

        Returns:
            (n, C, H, W) on the device, in the order N H W C.
        """
        pixels = self._move(pixels)
        if draws is not None:
            moves = (self._move(torch.from_numpy(values)) for values in draws)
            pixels = augmented(pixels, self._pad, *moves)
        images = pixels.to(self._scale.dtype, memory_format=torch.channels_last)
        images = images.mul_(self._scale).add_(self._shift)
        if mix is None or mix.box is not None:
            return images
        return images * mix.share + images.roll(1, 0) * (1 - mix.share)

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)


def augmented(pixels: Tensor, pad: int, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
    """What `Augment.apply` does, by one look-up a pixel.

    Args:
        pixels: (n, C, H, W).
        pad: the most that a window may be moved.
        down: (n,) rows by which each image's window is moved; black outside.
        right: (n,) columns.
        mirrored: (n,) whether it is mirrored left to right then.

    Returns:
        (n, C, H, W).
    """
    count, channels, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    device = pixels.device
    rows = torch.arange(pad, pad + height, device=device) + down[:, None]  # (n, H)
    columns = torch.arange(pad, pad + width, device=device) + right[:, None]  # (n, W)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    image = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
