"""From a file to a network that runs: compressed or not, a run directory or a single file."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sixfold.compression.codec.container import (
    Container,
    is_container,
    read_container,
    refusal,
    unpack,
)
from sixfold.compression.codec.wire import DamagedError
from sixfold.core.checks import is_true
from sixfold.core.errors import UserError
from sixfold.data.augmentation.views import NONE
from sixfold.models import check_origin
from sixfold.models.building import has_lazy
from sixfold.models.config import ModelConfig
from sixfold.models.factory import model_factory
from sixfold.training import model_card
from sixfold.training.classifier import Classifier
from sixfold.training.model_card import ModelCard


def load(path: str | Path, *, trust_model: bool = False, tta: str = NONE) -> Classifier:
    """A trained network, ready to classify, from its file or the directory of its run.

    Args:
        path: a ``model.sixz``, a ``model.safetensors``, or a run directory of ``sixfold train`` or
            ``sixfold compress``.
        trust_model: whether the file may name any code for its network: the factory is called.
        tta: views of each image over which outputs are averaged: "flip", "flip,shift:1".

    Returns:
        The network in evaluation mode, on the CPU: raw images (N, C, H, W), uint8 or from 0 to 1,
        to scores (N, classes). It normalises them by its `mean` and `std`; `network` is the plain
        one, for normalised images.

    A `UserError` if there is none, the file is damaged or does not fit its network, or that is
    neither the zoo's nor code in the current directory and is not trusted.
    """
    trust = is_true(trust_model, "trust_model")
    file = model_card.weights_file(path)
    network, card = load_network(file, trusted=read_card(file, trust=trust).model)
    if text := model_card.edited(card):
        warnings.warn(text, stacklevel=2)
    return Classifier(network, card, tta)


def load_network(file: Path, *, trusted: str = "") -> tuple[nn.Module, ModelCard]:
    """A network in evaluation mode, and its card, from a compressed or a plain weights file."""
    if not is_container(file):
        return model_card.load_network(file, trusted=trusted)
    container = read_container(file)
    try:
        card = card_of(container.header)
        if card.model != trusted:
            check_origin(card.model, file)
        return rebuild(container)
    except DamagedError as error:
        raise refusal(file, error) from error
    except UserError as error:
        raise UserError(f"{file}: {problem}" for problem in error.problems) from error


def read_card(file: Path, *, trust: bool = False) -> ModelCard:
    """The card of a compressed or a plain weights file."""
    if not is_container(file):
        return model_card.read_card(file, trust=trust)
    try:
        card = card_of(read_container(file).header)
    except DamagedError as error:
        raise refusal(file, error) from error
    if not trust:
        check_origin(card.model, file)
    return card


def rebuild(container: Container) -> tuple[nn.Module, ModelCard]:
    """The network that a container holds, in evaluation mode, and its card."""
    card = card_of(container.header)
    network = build_on_meta(card)
    tensors = unpack(container, network.state_dict())
    network.load_state_dict(tensors, assign=True)
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        # Something that the state dict leaves out: then it has to be computed by the factory.
        network = card.build()
        network.load_state_dict(tensors)
    return network.eval(), card


def build_on_meta(card: ModelCard) -> nn.Module:
    """The network without values (on device meta), or with fresh ones where it needs values."""
    chosen = model_factory(
        ModelConfig(model=card.model, model_args=card.model_args),
        shape=card.shape,
        classes=card.outputs,
    )
    try:
        with torch.device("meta"):
            network = chosen.make()
        network.state_dict()
        if has_lazy(network):  # sizes follow from an image, which must have values
            return card.build()
        return network.to(getattr(torch, card.precision))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, UserError):
        # The factory computes with values: a zoo's network never does, the user's own may.
        if chosen.is_zoo:
            raise DamagedError(f"{card.model} cannot be built for {card.shape} images") from None
        return card.build()


def tied(card: ModelCard) -> dict[str, str]:
    """Further names of tensors that several layers share, each with the first name."""
    network = build_on_meta(card)
    first = {id(tensor): name for name, tensor in network.named_parameters()}
    every = network.named_parameters(remove_duplicate=False)
    return {name: first[id(tensor)] for name, tensor in every if first[id(tensor)] != name}


def card_of(header: Mapping[str, Any]) -> ModelCard:
    """The card in a container's header."""
    try:
        return model_card.card_from(header.get("card"))
    except ValueError as error:
        raise DamagedError(str(error)) from None
