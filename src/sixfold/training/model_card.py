"""A trained network on disk: its weights, and the card that says how to use them again."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from sixfold import models
from sixfold.core import tensor_file
from sixfold.core.config import ANY_RANGE, PIXEL_RANGES
from sixfold.core.errors import UserError
from sixfold.core.files import parse_json
from sixfold.core.run_store import local_run
from sixfold.data import DataSet
from sixfold.data.targets import CLASSES, KINDS, outputs_of
from sixfold.models.config import ModelConfig
from sixfold.models.packed import beside
from sixfold.models.project import changed_files
from sixfold.training import torch_file
from sixfold.training.checkpoint import WEIGHTS, model_tensors, refuse_swapped
from sixfold.training.config import TrainConfig
from sixfold.training.step.precision import in_precision, weights_precision

_LARGEST_SIDE = 1 << 16

EIGHT_BITS, FLOATING = "uint8", "float32"  # pixels of images


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Mean and standard deviation of the pixels a network was trained on, (C,) each."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    dtype: str  # of the pixels


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What it takes to use weights again."""

    model: str  # name of the network, as `--model` takes it
    model_args: str  # its factory's arguments
    precision: str  # dtype of the weights
    shape: tuple[int, int, int]  # (C, H, W) of the images it was trained on
    classes: tuple[str, ...]  # names of the classes, in the order of the scores
    mean: tuple[float, ...]  # per channel, what was subtracted from pixels over full scale
    std: tuple[float, ...]  # per channel, what they were divided by
    # What floating-point pixels of the training's images were, one of `PIXEL_RANGES`; empty of
    # others.
    pixel_range: str = ""
    kind: str = CLASSES  # of the targets; `classes` names classes, labels or numbers
    # Hashes of the user's own files that the network was made of, by their names.
    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """Of the pixels: float32 where they are numbers of any range."""
        return FLOATING if self.pixel_range == ANY_RANGE else EIGHT_BITS

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        # As older cards have it, without a word.
        usual = {"source": {}, "kind": CLASSES, "pixel_range": ""}
        fields = dataclasses.asdict(self)
        return {k: v for k, v in fields.items() if k not in usual or v != usual[k]}

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for an image."""
        return outputs_of(self.kind, len(self.classes))

    def statistics(self) -> Statistics:
        """How images must be normalised for this network, whatever their own statistics."""
        return Statistics(mean=np.array(self.mean), std=np.array(self.std), dtype=self.dtype)

    def of(self, model: ModelConfig) -> ModelCard:
        """The card with the network that the settings name, whatever the file says."""
        return dataclasses.replace(self, model=model.model, model_args=model.model_args)

    def build(self) -> nn.Module:
        """The network, with fresh weights."""
        network = models.build(
            ModelConfig(model=self.model, model_args=self.model_args),
            shape=self.shape,
            classes=self.outputs,
            seed=0,
        )
        return in_precision(network, self.precision)


def edited(card: ModelCard) -> str:
    """Which files of a network's source are not what they were when it was trained; or nothing."""
    changed = changed_files(card.model, card.model_args, card.source)
    if not changed:
        return ""
    return (
        f"{', '.join(changed)} changed since {card.model} was trained: its weights fit, but the "
        "network may compute something else with them"
    )


def card_of(config: TrainConfig, data: DataSet, source: Mapping[str, str] | None) -> ModelCard:
    """The card of a network that is trained with these settings, with hashes of its source."""
    return ModelCard(
        model=config.model.model,
        model_args=config.model.model_args,
        precision=weights_precision(config.training.precision),
        shape=data.shape,
        classes=data.classes,
        mean=tuple(float(value) for value in data.mean),
        std=tuple(float(value) for value in data.std),
        kind=data.kind,
        pixel_range=data.pixel_range,
        source=dict(source or {}),
    )


def pack(network: nn.Module, card: ModelCard) -> bytes:
    """Weights and card as the bytes of a safetensors file."""
    metadata = {"sixfold": json.dumps(card.plain())}
    return tensor_file.pack(model_tensors(network), metadata)


def weights_file(place: Path | str) -> Path:
    """The weights of a run directory, or a weights file itself; a `UserError` if there are none.

    Of a URL the copy on this host.
    """
    run = local_run(place)
    if run.is_file():
        return run
    file = run / WEIGHTS
    if file.is_file():
        return file
    if not run.exists():
        raise UserError(f"there is no run {run}: give a run directory of `sixfold train`")
    raise UserError(
        f"{run} holds no model.safetensors: the run is not finished (go on with "
        "`sixfold train ... --resume`) or it is no run directory"
    )


def card_from(fields: Any) -> ModelCard:
    """A card from plain data; a `ValueError` if a field is missing or makes no sense."""
    if not isinstance(fields, dict):
        raise ValueError("it has no card")
    texts = [fields.get(name) for name in ("model", "model_args", "precision")]
    if not all(isinstance(text, str) for text in texts) or texts[2] not in ("float32", "float64"):
        raise ValueError("its card names no network")
    shape, classes = fields.get("shape"), fields.get("classes")
    if (
        not isinstance(shape, list)
        or len(shape) != 3
        or not all(type(size) is int and 1 <= size <= _LARGEST_SIDE for size in shape)
        or not isinstance(classes, list)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise ValueError("its card has no shape or no classes")
    numbers = {}
    for name in ("mean", "std"):
        values = fields.get(name)
        if not isinstance(values, list) or len(values) != shape[0]:
            raise ValueError(f"its card has no {name} for each channel")
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise ValueError(f"its card's {name} are no numbers")
        numbers[name] = tuple(float(value) for value in values)
    source = fields.get("source", {})
    if not isinstance(source, dict) or not all(isinstance(v, str) for v in source.values()):
        raise ValueError("its card's source is no table of hashes")
    kind = fields.get("kind", CLASSES)
    if kind not in KINDS:
        raise ValueError(f"its card's kind of targets {str(kind)[:80]} is not known")
    pixel_range = fields.get("pixel_range", "")
    if pixel_range not in ("", *PIXEL_RANGES):
        raise ValueError(f"its card's range of pixels {str(pixel_range)[:80]} is not known")
    return ModelCard(
        model=fields["model"],
        model_args=fields["model_args"],
        precision=fields["precision"],
        shape=(shape[0], shape[1], shape[2]),
        classes=tuple(classes),
        mean=numbers["mean"],
        std=numbers["std"],
        kind=kind,
        pixel_range=pixel_range,
        source=source,
    )


def read_card(file: Path, *, trust: bool = False) -> ModelCard:
    """The card in a weights file; `trust` says that it may name anybody's code.

    A `UserError` if the file is damaged, was not written by Sixfold, is another than the run's
    result says, or names a stranger's code.
    """
    card, tensors = _read(file)
    refuse_swapped(file, tensors)
    if not trust:
        models.check_origin(card.model, file)
    return card


def _read(file: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """Card and tensors, which are mapped: what is not looked at is not read again."""
    try:
        with tensor_file.open_tensors(file) as opened:
            fields = parse_json((opened.metadata() or {})["sixfold"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        card = card_from(fields)
        return dataclasses.replace(card, model=beside(card.model, file)), tensors
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        kind = torch_file.kind_of(file)
        if kind == torch_file.TORCH:
            raise UserError(
                f"{file}: holds PyTorch's weights without network, classes and normalisation: make "
                f"a run of it by `sixfold train --model NAME --weights {file} --data SPEC`"
            ) from error
        raise UserError(
            f"{file} is damaged or was not written by Sixfold ({kind or error}): train again, or "
            "give another run"
        ) from error


def load_network(file: Path, *, trusted: str = "") -> tuple[nn.Module, ModelCard]:
    """A trained network in evaluation mode, and its card.

    The code of the network `trusted` may be run in any case, as ranks are told by the launcher,
    which has looked at it. A `UserError` if the weights are damaged, do not fit the network of that
    name, or that is a stranger's code.
    """
    card, tensors = _read(file)
    if card.model != trusted:
        models.check_origin(card.model, file)
    network = card.build()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reasons = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        raise UserError(
            f"the weights in {file} do not fit {card.model}: {'; '.join(reasons[:3])}{more}"
        ) from error
    return network.eval(), card
