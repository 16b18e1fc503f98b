"""A trained network that takes raw images: it normalises them itself, as its training did."""

from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.errors import UserError
from sixfold.data import BatchMaker
from sixfold.data.augmentation.views import NONE, parse_views
from sixfold.models.outputs import main_output
from sixfold.training.averaged_views import averaged
from sixfold.training.model_card import FLOATING, ModelCard

TOLERANCE = 1e-3  # by which floating-point images may leave 0 to 1, as after a resize


class Classifier(nn.Module):
    """Raw images (N, C, H, W) to the network's outputs (N, K): scores before softmax, or numbers.

    Of a network with several outputs the main one; `network` gives all.

    Its state dict is that of the network alone, under the network's own names.

    Args:
        network: trained on normalised images.
        card: what it was trained on.
        tta: views of each image over which outputs are averaged, as `--tta` has it.

    Attributes:
        network: for images that are normalised already.
        mean: of each channel, (C,), of pixels from 0 to 1, or as they are.
        std: of each channel, (C,).
        classes: name of each class, in the order of the scores.
        kind: of the targets; of labels and numbers `classes` has the names.
        shape: C H W of the images it was trained on.
        pixel_range: of their floating-point pixels, one of `PIXEL_RANGES`; empty if they had
            others.
        dtype: of their pixels: uint8, or float32 for numbers of any range.
        views: how it looks at each image.
    """

    mean: Tensor
    std: Tensor
    _scale: Tensor
    _shift: Tensor

    def __init__(self, network: nn.Module, card: ModelCard, tta: str = NONE) -> None:
        super().__init__()
        self.network = network
        self.views = parse_views(tta, card.shape)
        self.classes, self.kind = card.classes, card.kind
        self.shape, self.pixel_range, self.dtype = card.shape, card.pixel_range, card.dtype
        dtype = torch.float64 if card.precision == "float64" else torch.float32
        maker = BatchMaker(card.statistics(), "float64" if dtype is torch.float64 else "float32")
        scale, shift = map(torch.from_numpy, maker.factors)
        values = {
            "mean": torch.tensor(card.mean, dtype=dtype),
            "std": torch.tensor(card.std, dtype=dtype),
            "_scale": scale,
            "_shift": shift,
        }
        for name, value in values.items():  # buffers go along to another device
            self.register_buffer(name, value, persistent=False)
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]
        self.train(network.training)

    def normalise(self, images: Tensor) -> Tensor:
        """(pixels - mean) / std of each channel, of uint8 (0 to 255) or floats from 0 to 1.

        A network that was trained on floating-point numbers takes such, as they are. A `UserError`
        if images (N, C, H, W) are none of these.
        """
        if not isinstance(images, Tensor):
            raise UserError(f"images are a {type(images).__name__}: expected a torch.Tensor")
        if images.dim() != 4 or images.shape[1] != len(self.mean):
            raise UserError(
                f"images of shape {tuple(images.shape)}: expected (N, {len(self.mean)}, H, W)"
            )
        if self.dtype == FLOATING:
            if not images.is_floating_point():
                raise UserError(
                    f"images of {images.dtype}: expected floating-point numbers, as those that the "
                    "network was trained on"
                )
            return images.to(self._scale.dtype) * self._scale + self._shift
        if images.dtype == torch.uint8:
            return images.to(self._scale.dtype) * self._scale + self._shift
        if not images.is_floating_point():
            raise UserError(
                f"images of {images.dtype}: expected uint8 (0 to 255) or floating-point (0 to 1)"
            )
        # While a network is traced there are no values to look at.
        if images.numel() and not (_is_traced()):
            low, high = images.aminmax()
            if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also refuses NaN
                raise UserError(
                    f"pixels from {low:g} to {high:g}: expected 0 to 1, or uint8: images are "
                    "normalised in here; give normalised ones to `.network`"
                )
        return images.to(self._scale.dtype) * 255 * self._scale + self._shift

    def forward(self, images: Tensor) -> Tensor:
        """Scores of raw images."""
        images = self.normalise(images)
        if len(self.views) > 1:
            return averaged(self.network, images, self.views)
        scores: Tensor = main_output(self.network(images))
        return scores


def _is_traced() -> bool:
    tracing: bool = torch._C._get_tracing_state() is not None
    return tracing or torch.compiler.is_compiling()


_PREFIX = "network."


def _without_prefix(
    _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]
) -> None:
    for name in [name for name in state if name.startswith(prefix + _PREFIX)]:
        state[prefix + name[len(prefix + _PREFIX) :]] = state.pop(name)


def _with_prefix(_module: nn.Module, state: dict[str, Any], prefix: str, *_rest: object) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + _PREFIX + name[len(prefix) :]] = state.pop(name)
