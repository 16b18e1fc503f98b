"""A trained network and the images that it scores: found by the launcher, opened by every rank."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from sixfold import data as datasets
from sixfold.compression.loading import load_network, read_card
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import read_whole_json
from sixfold.data.augmentation.views import NONE
from sixfold.data.config import DataConfig
from sixfold.data.dataset import UNLABELLED
from sixfold.data.origin import origin_problems
from sixfold.data.run import resolve_data
from sixfold.data.targets import AUTO, CLASSES
from sixfold.distributed.engines import Engine
from sixfold.training.inputs import warn_if_edited
from sixfold.training.model_card import EIGHT_BITS, FLOATING, ModelCard, weights_file

_REMEDY = "give --data SPEC, or put it back"


@dataclass(frozen=True, kw_only=True)
class ScoringJob:
    """What the launcher hands to every rank."""

    weights: Path
    trusted: str  # the network whose code may be run
    data: DataConfig  # the data set, resolved
    part: str  # "test", "train" or "all"
    labels: tuple[int, ...]  # for each class of the data its class of the network, or -1
    tta: str = NONE  # views of an image over which outputs are averaged

    def open(self) -> tuple[nn.Module, ModelCard, datasets.DataSet, datasets.BatchMaker]:
        """Network, card, data, and what makes batches as the network's training did."""
        network, card = load_network(self.weights, trusted=self.trusted)
        maker = datasets.BatchMaker(card, card.precision)
        return network, card, datasets.open_data(self.data, as_listed=True), maker


def trained_network(run: str, trust: bool, on_event: OnEvent | None) -> tuple[Path, ModelCard]:
    """A run's weights, and their card."""
    weights = weights_file(run)
    card = read_card(weights, trust=trust)
    warn_if_edited(card, on_event)
    return weights, card


def scored_data(
    asked: DataConfig,
    split: str,
    weights: Path,
    card: ModelCard,
    engine: Engine,
    workers: int,
    on_event: OnEvent,
    *,
    labelled: bool = True,
) -> tuple[dict[str, Any], datasets.DataSet]:
    """The fields of a `ScoringJob`, and the data opened; they are resolved, and fit the network.

    Data that the network was trained on are cut as they were then.
    """
    settings = _settings(weights)
    own = settings.get("data") == datasets.absolute_spec(asked.data)
    if own:
        asked = replace(asked, test_split=settings.get("test_split"))
    resolved = resolve_data(asked, engine, workers, on_event, labelled=labelled)
    opened = datasets.open_data(resolved, as_listed=True)
    if tuple(opened.shape) != tuple(card.shape):
        wanted, given = ("x".join(map(str, shape)) for shape in (card.shape, opened.shape))
        raise UserError(
            f"the network was trained on {wanted} images (channels x rows x columns), "
            f"the data has {given}"
        )
    if opened.dtype != card.dtype:
        words = {EIGHT_BITS: "8-bit pixels", FLOATING: "floating-point numbers"}
        raise UserError(
            f"--data {asked.data}: images of {words[str(opened.dtype)]}: the network was trained "
            f"on {words[card.dtype]}"
        )
    if split == "auto":
        split = "test" if (opened.own_test or own) and len(opened.test) else "all"
    labels = class_map(card, opened.classes)
    if card.kind == CLASSES and (text := class_note(card, opened.classes, labels)):
        on_event({"kind": "note", "text": text})
    job = {
        "weights": weights,
        "trusted": card.model,
        "data": resolved,
        "part": split,
        "labels": labels,
    }
    return job, opened


def _settings(weights: Path) -> dict[str, Any]:
    """On which data the network was trained, as far as that is known."""
    found = (read_whole_json(weights.with_name("config.json"), _REMEDY) or {}).get("data")
    return found if isinstance(found, dict) else {}


def asked_data(asked: Any, weights: Path, card: ModelCard) -> DataConfig:
    """The data asked for, or those of the training with all their settings that matter here."""
    own = _settings(weights)
    trained = {} if asked.data is not None else own
    shape = card.shape
    # Names of columns do not matter to a network for classes, but to one for several numbers.
    column = (trained if card.kind == CLASSES else own).get("label_column")
    spec = asked.data or trained.get("data")
    is_table = str(spec).partition(":")[0] in ("parquet", "hf")
    if not isinstance(spec, str):
        raise UserError(
            f"{weights.parent} does not say on which data the network was trained: give --data SPEC"
        )
    is_vouched = asked.data is not None or asked.trust_model
    raise_problems(origin_problems(spec, weights.with_name("config.json"), is_vouched))
    # Else the network's size, if that is square.
    side = trained.get("resize") if trained else shape[1] if shape[1] == shape[2] else None
    return DataConfig(
        data=spec,
        resize=asked.resize or side,
        image_column=asked.image_column or trained.get("image_column"),
        pixel_range=asked.pixel_range or (is_table and card.pixel_range) or None,
        label_column=asked.label_column or (column if spec.startswith("parquet:") else None),
        target=AUTO if card.kind == CLASSES else card.kind,
        on_error=trained.get("on_error", "fail") if asked.on_error == "fail" else asked.on_error,
    )


def class_map(card: ModelCard, classes: tuple[str, ...]) -> tuple[int, ...]:
    """For each class of a data set its number in the network, by name; -1 if it has none.

    Where no name agrees but the numbers of classes do, classes are taken by their order.
    """
    numbers = {name: number for number, name in enumerate(card.classes)}
    found = tuple(numbers.get(name, -1) for name in classes)
    known = [name for name in classes if name != UNLABELLED]
    if all(number < 0 for number in found) and len(known) == len(card.classes):
        # The class of rows without a label is the last one, if there is one.
        return (*range(len(known)), *[-1] * (len(classes) - len(known)))
    return found


def class_note(card: ModelCard, classes: Sequence[str], numbers: Sequence[int]) -> str:
    """What there is to say of the data's classes, given their numbers from `class_map`."""
    pairs = [pair for pair in zip(classes, numbers, strict=True) if pair[0] != UNLABELLED]
    renamed = [
        f"{name} for {card.classes[number]}"
        for name, number in pairs
        if number >= 0 and name != card.classes[number]
    ]
    if renamed:
        return (
            f"classes of the data have other names and are taken in their order: {_some(renamed)}"
        )
    unknown = [name for name, number in pairs if number < 0]
    if unknown:
        return f"the network knows no class {_some(unknown)}: such images count as unlabelled"
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def chosen_parts(data: datasets.DataSet, part: str) -> list[datasets.Part]:
    """The parts of a data set that `--split` names."""
    by_name = {
        "train": [data.train],
        "test": [data.test],
        "all": [data.train, data.validation, data.test],
    }
    return [chosen for chosen in by_name[part] if len(chosen)]
