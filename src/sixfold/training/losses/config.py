"""Settings of the loss."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.core.settings import Settings, option

BALANCED = "balanced"


@dataclass(frozen=True, kw_only=True)
class LossConfig(Settings):
    """What is made small."""

    loss: str = option(
        "cross_entropy",
        "cross_entropy, binary, multi_label, mse, l1, huber, as fits the data; or your own, "
        "package.module:function of (output, target[, weight]) that adds over samples",
    )
    label_smoothing: float = option(
        0.0, "cross_entropy: part of each label that is spread over all classes", ge=0, lt=1
    )
    huber_delta: float = option(1.0, "huber: error from which the loss grows linearly", gt=0)
    class_weights: str = option(
        "",
        "weight of each sample by its class: balanced, or NAME=W,... (others 1); multi_label: of "
        "the samples that have a label",
        form="balanced|NAME=W,...",
    )

    aux_weight: str = option(
        "",
        "how much further outputs of a network (auxiliary heads) count beside the main one: a "
        "number, or NAME=W,... (others 0)",
        form="W|NAME=W,...",
    )

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Why a loss that only the run names is not used: its code may be a stranger's."""
        is_torch = self.loss.startswith(("torch.nn.functional:", "torch.nn.modules.loss:"))
        if "loss" not in taken or ":" not in self.loss or is_torch:
            return []
        from sixfold.models.origin import check_module

        try:
            check_module(self.loss, file, "loss")
        except UserError as error:
            return list(error.problems)
        return []

    def cross_problems(self) -> list[str]:
        """What the loss does not know, or does not go with."""
        from sixfold.training.losses.registry import loss_problems

        return loss_problems(self)
