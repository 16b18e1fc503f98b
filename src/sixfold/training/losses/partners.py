"""The loss of images that are mixed with others.

With a share s of the own label y, and 1 - s of the other image's

    l = s l(z, y) + (1 - s) l(z, y')

A loss that is linear in its target (cross-entropy, smoothed or not) is that of the mixed target.
Any other, the user's own too, is only asked to be a sum over samples. A mixed image counts by its
samples' weights in the same shares, and is right by the shares of the labels that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sixfold.training.losses.loss import Computed, Loss, Score


@dataclass(frozen=True)
class Partners:
    """The other half of mixed images.

    Attributes:
        labels: of the other images, as those of the own.
        weights: (n,) of them; None: all the same.
        share: of the own label, 0 to 1.
    """

    labels: Tensor
    weights: Tensor | None
    share: float | Tensor

    @staticmethod
    def of(labels: Tensor, weights: Tensor | None, share: float) -> Partners:
        """Each image's partner is the one before it, the first's the last."""
        rolled = None if weights is None else weights.roll(1, 0)
        return Partners(labels.roll(1, 0), rolled, share)

    def cut(self, part: slice) -> Partners:
        """Those of a part of the images."""
        weights = None if self.weights is None else self.weights[part]
        return Partners(self.labels[part], weights, self.share)

    def mixed(self, own: Any, other: Any) -> Any:
        """The sum s own + (1 - s) other, also of gradients by the names of outputs."""
        if isinstance(own, dict):
            return {name: self.mixed(value, other[name]) for name, value in own.items()}
        return self.share * own + (1 - self.share) * other


def compute(
    loss: Loss, outputs: Any, labels: Tensor, weights: Tensor | None, partners: Partners | None
) -> Computed:
    """Sum over samples of the loss, and its gradient."""
    found = loss.compute(outputs, labels, weights)
    if partners is None:
        return found
    other = loss.compute(outputs, partners.labels, partners.weights)
    return partners.mixed(found[0], other[0]), partners.mixed(found[1], other[1])


def right(score: Score, outputs: Tensor, labels: Tensor, partners: Partners | None) -> Tensor:
    """How many samples are told right, ()."""
    own = score(outputs, labels)
    if partners is None:
        return own
    mixed: Tensor = partners.mixed(own.double(), score(outputs, partners.labels).double())
    return mixed
