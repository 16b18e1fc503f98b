"""A trained network on disk: its weights, and the card that says how to use them again."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sixfold import models
from sixfold.checkpoint import model_tensors
from sixfold.config import ModelConfig
from sixfold.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Mean and standard deviation of the pixels a network was trained on, (C,) each."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What it takes to use weights again.

    Attributes:
        model: name of the network, as `--model` takes it.
        model_args: its factory's arguments.
        precision: dtype of the weights.
        shape: (C, H, W) of the images it was trained on.
        classes: names of the classes, in the order of the scores.
        mean: per channel, what was subtracted from pixels in [0, 1].
        std: per channel, what they were divided by.
    """

    model: str
    model_args: str
    precision: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def statistics(self) -> Statistics:
        """How images must be normalised for this network, whatever their own statistics."""
        return Statistics(mean=np.array(self.mean), std=np.array(self.std))

    def build(self) -> nn.Module:
        """The network, with fresh weights."""
        network = models.build(
            ModelConfig(model=self.model, model_args=self.model_args),
            shape=self.shape,
            classes=len(self.classes),
            seed=0,
        )
        return network.to(getattr(torch, self.precision))


def pack(network: nn.Module, card: ModelCard) -> bytes:
    """Weights and card as the bytes of a safetensors file."""
    data: bytes = save(model_tensors(network), {"sixfold": json.dumps(dataclasses.asdict(card))})
    return data


def weights_file(run: Path) -> Path:
    """The weights of a run directory; a path to a weights file itself is taken as it is.

    Raises:
        UserError: if there are none.
    """
    if run.is_file():
        return run
    file = run / "model.safetensors"
    if file.is_file():
        return file
    if not run.exists():
        raise UserError(f"there is no run {run}: give a run directory of `sixfold train`")
    raise UserError(
        f"{run} holds no model.safetensors: the run is not finished (go on with "
        "`sixfold train ... --resume`) or it is no run directory"
    )


def read_card(file: Path) -> ModelCard:
    """The card in a weights file.

    Raises:
        UserError: if the file is damaged or was not written by Sixfold.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            fields = json.loads((opened.metadata() or {})["sixfold"])
        for name in ("shape", "classes", "mean", "std"):
            fields[name] = tuple(fields[name])
        return ModelCard(**fields)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged or was not written by Sixfold ({error}): train again, or give "
            "another run"
        ) from error


def load_network(file: Path) -> tuple[nn.Module, ModelCard]:
    """A trained network in evaluation mode, and its card.

    Raises:
        UserError: if the weights are damaged or do not fit the network of that name.
    """
    card = read_card(file)
    network = card.build()
    try:
        with safe_open(file, framework="pt") as opened:
            network.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"the weights in {file} do not fit {card.model}: {error}") from error
    return network.eval(), card
