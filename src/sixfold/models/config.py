"""Settings of the network."""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.core.settings import Settings, option

ZOO = {
    "slide": ("slide", 32),
    "lenet300": ("lenet", 28),
    "lenet5": ("lenet", 28),
    "cells": ("cells", 256),
    "conv2": ("conv_n", 32),
    "conv4": ("conv_n", 32),
    "conv6": ("conv_n", 32),
    "resnet20": ("resnet", 32),
    "resnet18": ("resnet", 224),
    "resnet50": ("resnet", 224),
    "vgg16": ("vgg", 32),
    "alexnet": ("alexnet", 224),
    "mobilenet_v2": ("mobilenet", 224),
}
"""Network -> its module, and the usual rows and columns of its images; in the help's order."""


def unknown_model(name: str) -> str:
    """A line that says that there is no such network."""
    close = get_close_matches(name.lower(), ZOO, n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown model {name!r}: {hint}The zoo has {', '.join(ZOO)}; your own is written "
        "package.module:factory"
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Which network."""

    model: str = option(
        "lenet5", "a network of the zoo (`sixfold models`) or your own: package.module:factory"
    )
    model_args: str = option(
        "", "arguments for the network's factory, such as width=0.5,dropout=0.1"
    )

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Why a network that only the run names is not used: its code may be a stranger's."""
        if "model" not in taken or ":" not in self.model:
            return []
        from sixfold.models.origin import check_origin

        try:
            check_origin(self.model, file)
        except UserError as error:
            return list(error.problems)
        return []

    def cross_problems(self) -> list[str]:
        """Whether the name is a network's of the zoo, or may be one of the user's own."""
        known = ":" in self.model or self.model in ZOO
        return [] if known else [unknown_model(self.model)]
