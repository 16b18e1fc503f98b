"""Writing a network for others: ONNX."""

import importlib.util
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from sixfold.core.errors import RunError, raise_problems
from sixfold.training.model_card import ModelCard

REMEDY = "writing ONNX needs onnx and onnxscript: pip install 'sixfold[onnx]'"


def onnx_problems() -> list[str]:
    """What stands in the way of writing ONNX, one line each."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    return [REMEDY] if missing else []


def export_onnx(network: nn.Module, card: ModelCard, path: Path) -> None:
    """Write a network as an ONNX file: input `images` (N, C, H, W), output `scores` (N, classes).

    Images are normalised as the card says; the batch size N is free.
    """
    raise_problems(onnx_problems())
    images = torch.zeros(2, *card.shape, dtype=getattr(torch, card.precision))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_onnx(network, images, temporary, card.model)
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_onnx(network: nn.Module, images: torch.Tensor, path: Path, name: str) -> None:
    """Write a network that takes such images (N, C, H, W), N of which is free, and gives a tensor.

    A `RunError` if it cannot be described as ONNX; `name` tells people which it is.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        with warnings.catch_warnings():
            # The exporter warns of its own insides, and of packages that are not needed.
            warnings.simplefilter("ignore")
            logger.setLevel(logging.ERROR)
            torch.onnx.export(
                network,
                (images,),
                path,
                input_names=["images"],
                output_names=["scores"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                external_data=False,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{name} cannot be written as ONNX: {line}") from error
    finally:
        logger.setLevel(level)
