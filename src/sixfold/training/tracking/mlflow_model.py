"""The network of a run in MLflow's own format.

    model = mlflow.pyfunc.load_model("runs:/RUN_ID/model")
    probabilities = model.predict(images)  # (N, C, H, W) uint8 -> (N, K) float32

It loads where mlflow and sixfold are installed: MLflow calls `_load_pyfunc` here. Of a network of
the user's own the source goes along.
"""

import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sixfold.models.importing import source_files
from sixfold.models.packed import beside, is_packed, packed_path
from sixfold.training.classifier import Classifier
from sixfold.training.evaluate import probabilities
from sixfold.training.model_card import ModelCard, load_network, read_card, weights_file

WEIGHTS = "model.safetensors"
BATCH = 256  # images that are computed at once


class RawImages:
    """Predicts from raw images, as MLflow calls it."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier.eval()

    def predict(self, images: Any, params: Any = None) -> NDArray[np.float32]:  # noqa: ARG002
        """Probabilities of classes or labels, or the numbers of a regression.

        Images are (N, C, H, W), uint8 from 0 to 255, or float32; MLflow gives `params`, of which
        none are known.
        """
        array = np.ascontiguousarray(images)
        found = [np.empty((0, len(self._classifier.classes)), np.float32)]
        for begin in range(0, len(array), BATCH):
            with torch.no_grad():
                scores = self._classifier(torch.from_numpy(array[begin : begin + BATCH]))
                told = probabilities(self._classifier.kind, scores)
            found.append(told.to(torch.float32).numpy())
        return np.concatenate(found)


def save_model(run: Path, folder: Path) -> None:
    """Write the network of a finished run as an MLflow model into a folder, which is made."""
    with warnings.catch_warnings():
        # It warns, in colour, of type hints of its own and of there being no example of images.
        warnings.simplefilter("ignore")
        _save_model(run, folder)


def _save_model(run: Path, folder: Path) -> None:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model as save_pyfunc
    from mlflow.types import Schema, TensorSpec

    file = weights_file(run)
    card = read_card(file, trust=True)  # the run has just been made with it
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(card.dtype), (-1, *card.shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(card.classes)))]),
    )
    with tempfile.TemporaryDirectory(prefix="sixfold-") as scratch:
        data = Path(scratch) / "network"
        _gather(file, card, data)
        save_pyfunc(
            str(folder),
            loader_module=__name__,
            data_path=str(data),
            code_paths=[str(path) for path in source_files(card.model)] or None,
            signature=signature,
            pip_requirements=[f"{name}=={version(name)}" for name in ("sixfold", "torch")],
            metadata={"classes": list(card.classes), "kind": card.kind, "model": card.model},
        )


def _gather(file: Path, card: ModelCard, folder: Path) -> None:
    """Copy the weights, and the object that the network is made of where it has no module."""
    folder.mkdir()
    shutil.copyfile(file, folder / WEIGHTS)
    if is_packed(card.model):
        packed = packed_path(beside(card.model, file))
        folder.joinpath(packed.parent.name).mkdir()
        shutil.copyfile(packed, folder / packed.parent.name / packed.name)


def _load_pyfunc(path: str) -> RawImages:
    """Called by MLflow, which has run code of the model's folder before: the network's is too."""
    file = Path(path) / WEIGHTS
    network, card = load_network(file, trusted=read_card(file, trust=True).model)
    return RawImages(Classifier(network, card))
