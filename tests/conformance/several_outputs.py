"""Networks with several outputs, in every form in which one finds them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
"""As torchvision's GoogLeNet and Inception give them, in training alone."""
HelpFirst = namedtuple("HelpFirst", ["aux", "logits"])


@dataclasses.dataclass
class Answer:
    """A plain data class."""

    logits: Tensor
    aux: Tensor | None = None


@dataclasses.dataclass
class ModelOutput(OrderedDict[str, Any]):
    """As the library transformers has it: a dictionary whose entries are attributes too."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    aux: Tensor | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) is not None:
                self[field.name] = value


FORMS: dict[str, Any] = {
    "tuple": lambda main, aux: (main, aux),
    "list": lambda main, aux: [main, aux],
    "mapping": lambda main, aux: {"aux": aux, "out": main},
    "namedtuple": lambda main, aux: GoogLeNetOutputs(main, aux, aux),
    "help_first": lambda main, aux: HelpFirst(aux, main),
    "dataclass": lambda main, aux: Answer(main, aux),
    "model_output": lambda main, aux: ModelOutput(logits=main, aux=aux),
    # What is gone in evaluation, and how:
    "alone": lambda main, aux: main,
    "no_head": lambda main, _: (main, None),
    "without": lambda main, _: {"out": main},
    "no_field": lambda main, _: ModelOutput(logits=main),
}


class Forms(nn.Module):
    """A network with an auxiliary head; `training` and `evaluating` name what it gives."""

    def __init__(self, classes: int = 3, form: str = "tuple", then: str = "") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.main, self.head = nn.Linear(256, classes), nn.Linear(64, classes)
        self.form, self.then = form, then or form

    def forward(self, x: Tensor) -> Any:
        """Scores of both heads."""
        main, head = self.main(self.body(x).flatten(1)), self.head(x.flatten(1))
        return FORMS[self.form if self.training else self.then](main, head)


def both(outputs: Any, target: Tensor) -> Tensor:
    """A loss of the user's that reads the outputs by their names."""
    total = functional.cross_entropy(outputs.logits, target, reduction="sum")
    if outputs.aux is not None:
        total = total + functional.cross_entropy(outputs.aux, target, reduction="sum")
    return total
