from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sixfold.data.augmentation.views import View, parse_views
from sixfold.training.averaged_views import AveragedViews, seen, with_views


@pytest.mark.parametrize("view", [*parse_views("flip,shift:2"), View(9, 0, mirrored=True)])
def test_a_view_is_an_image_moved_and_mirrored(view: View) -> None:
    images = torch.randn(2, 3, 4, 5)
    found = seen(images, view)
    for y in range(4):
        for x in range(5):
            column = 4 - x if view.mirrored else x
            row, column = y + view.down, column + view.right
            there = images[:, :, min(max(row, 0), 3), min(max(column, 0), 4)]
            assert torch.equal(found[:, :, y, x], there)


class TwoHeads(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"aux": x[:, :2, 0, 0], "out": x.flatten(1)}


def test_outputs_are_averaged_over_the_views() -> None:
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    views = parse_views("flip,shift:1")
    for network in (nn.Flatten(), TwoHeads()):
        found = AveragedViews(network, views)(images)
        wanted = sum(seen(images, view).flatten(1) for view in views) / 10
        assert (found - wanted).abs().max() < 1e-12
    assert with_views(network, "none") is network
    assert AveragedViews(network.eval(), views).training is False
