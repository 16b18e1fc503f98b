"""A network's outputs averaged over views of each image (test-time augmentation).

    z(x) = 1/V sum over views v of  f(v(x))

Scores are averaged before softmax or sigmoid, numbers of a regression as they are.
"""

import torch
from torch import Tensor, nn

from sixfold.data.augmentation.views import View, parse_views
from sixfold.models.outputs import main_output


def seen(images: Tensor, view: View) -> Tensor:
    """Images (N, C, H, W) as a view has them; beyond the border its pixels are repeated."""
    if view.down or view.right:
        rows, columns = images.shape[2:]
        y, x = (torch.arange(size, device=images.device) for size in (rows, columns))
        images = images[:, :, (y + view.down).clamp(0, rows - 1)]
        images = images[:, :, :, (x + view.right).clamp(0, columns - 1)]
    return images.flip(3) if view.mirrored else images


class AveragedViews(nn.Module):
    """The mean of a network's main output over some views of its images.

    Args:
        network: of images (N, C, H, W), normalised or not.
        views: what it is shown.
    """

    def __init__(self, network: nn.Module, views: tuple[View, ...]) -> None:
        super().__init__()
        self.network, self.views = network, views
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, K)."""
        return averaged(self.network, images, self.views)


def averaged(network: nn.Module, images: Tensor, views: tuple[View, ...]) -> Tensor:
    """The mean of a network's main output, (N, K), over views of images (N, C, H, W)."""
    total: Tensor = main_output(network(seen(images, views[0])))
    for view in views[1:]:
        total = total + main_output(network(seen(images, view)))
    return total / len(views)


def with_views(network: nn.Module, text: str) -> nn.Module:
    """The network, or its mean over the views that `--tta` names."""
    views = parse_views(text)
    return network if len(views) == 1 else AveragedViews(network, views)
