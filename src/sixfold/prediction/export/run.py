"""The launcher of an export: the network, its file, and the proof that both compute the same."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.compression.loading import load_network
from sixfold.core.errors import RunError, UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import explained, file_problems
from sixfold.core.locks import held
from sixfold.core.version import __version__
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.prediction.export.config import ExportConfig
from sixfold.prediction.export.formats import FORMATS, Scorer, Scores, missing_packages, refusing
from sixfold.prediction.scoring import trained_network
from sixfold.training.classifier import Classifier
from sixfold.training.model_card import FLOATING, ModelCard

BATCHES = (1, 5, 2)  # sizes of the batches of the check: not the one with which the graph was taken
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""Most difference of a score, over the largest score or 1; kernels round in orders of their own."""


def export(config: ExportConfig, *, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Write a trained network for other programs, and check that the file computes the same.

    What was written, with the largest difference of a score between file and network.
    """
    asked = config.exporting
    found = config.problems()
    out = Path(asked.out).expanduser().absolute()
    if asked.out and not found:
        found += file_problems("--out", out)
    found += [
        f"--format {asked.chosen_format}: {why}" for why in missing_packages(asked.chosen_format)
    ]
    raise_problems(found)
    weights, card = trained_network(asked.run, asked.trust_model, on_event)
    if out == weights:
        raise UserError(f"--out {asked.out}: is the file of the weights: give another name")
    form = FORMATS[asked.chosen_format]
    pixels = FLOATING if card.dtype == FLOATING else asked.pixels
    metadata = _metadata(card, pixels)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    network = Scores(Classifier(load_network(weights, trusted=card.model)[0], card)).eval()
    # onnxruntime has no convolution of float64.
    precision = "float32" if asked.chosen_format == "onnx" else card.precision
    written = network if precision == card.precision else copy.deepcopy(network).float()
    with held(out, is_file=True), one_thread(), explained(out):
        try:
            form.write(written, _images(3, card, pixels), temporary, metadata)
            with refusing(metadata, f"{asked.chosen_format} for {form.checked_by}"):
                figures = _compare(network, form.open(temporary), card, pixels)
            _refuse_other_scores(figures, card, asked.chosen_format, precision)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    return {
        **metadata,
        **figures,
        "run": str(weights.parent),
        "format": asked.chosen_format,
        "checked_by": form.checked_by,
        "file": str(out),
        "bytes": out.stat().st_size,
    }


def _metadata(card: ModelCard, pixels: str) -> dict[str, Any]:
    return {
        "model": card.model,
        "classes": list(card.classes),
        "kind": card.kind,
        "shape": list(card.shape),
        "pixels": pixels,
        "mean": list(card.mean),
        "std": list(card.std),
        "sixfold": __version__,
    }


def _images(count: int, card: ModelCard, pixels: str) -> Tensor:
    """Random raw images (N, C, H, W), the same for the same count; the last is of one colour."""
    generator = torch.Generator().manual_seed(count)
    if card.dtype == FLOATING:
        mean, std = (torch.tensor(v)[:, None, None] for v in (card.mean, card.std))
        drawn = torch.randn((count, *card.shape), generator=generator)
        return (drawn * std + mean).float()
    images = torch.randint(0, 256, (count, *card.shape), dtype=torch.uint8, generator=generator)
    images[-1] = images[-1, 0, 0, 0]
    return images if pixels == "uint8" else images / 255


def _compare(network: nn.Module, written: Scorer, card: ModelCard, pixels: str) -> dict[str, Any]:
    """How far the scores of the written network are from those of the network."""
    difference, largest = 0.0, 0.0
    with torch.no_grad():
        for expected, images in _expected(network, card, pixels):
            scores = written(images)
            if scores.shape != expected.shape or not scores.isfinite().all():
                difference = float("inf")
                continue
            difference = max(difference, (scores - expected).abs().max().item())
            largest = max(largest, expected.abs().max().item())
    return {"images": sum(BATCHES), "largest_difference": difference, "largest_score": largest}


def _expected(network: nn.Module, card: ModelCard, pixels: str) -> Iterator[tuple[Tensor, Tensor]]:
    for count in BATCHES:
        images = _images(count, card, pixels)
        yield network(images), images


def _refuse_other_scores(
    figures: dict[str, Any], card: ModelCard, name: str, precision: str
) -> None:
    bound = TOLERANCE[precision] * max(figures["largest_score"], 1.0)
    if not figures["largest_difference"] <= bound:
        raise RunError(
            f"{card.model} as {name} gives other scores than the network (difference "
            f"{figures['largest_difference']:.3g}, at most {bound:.3g} expected), so it was not "
            "kept: its forward may decide by values or by the size of the batch; try another "
            "--format"
        )
