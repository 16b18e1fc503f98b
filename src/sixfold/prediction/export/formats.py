"""The formats in which a network is written: each writes a file, and runs one that was written.

A graph has one dtype of input, so which pixels it takes is settled when it is written.
"""

import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sixfold.compression.codec.export import REMEDY, onnx_problems, write_onnx
from sixfold.core.errors import RunError, UserError
from sixfold.models.outputs import main_output
from sixfold.training.classifier import Classifier

METADATA = "sixfold.json"  # name of the metadata in the archives that torch writes
Metadata = Mapping[str, Any]
Scorer = Callable[[Tensor], Tensor]


class Scores(nn.Module):
    """Raw images (N, C, H, W) to the main output alone, (N, K)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """The scores of raw images."""
        scores: Tensor = main_output(self.classifier(images))
        return scores


class Format(NamedTuple):
    """One format: `write(network, example images, file, metadata)` and `open(file)` to run it."""

    write: Callable[[nn.Module, Tensor, Path, Metadata], None]
    open: Callable[[Path], Scorer]
    checked_by: str


def missing_packages(name: str) -> list[str]:
    """What a format needs that is not installed, one line each."""
    if name != "onnx":
        return []
    return onnx_problems() or ([] if importlib.util.find_spec("onnxruntime") else [REMEDY])


def _write_onnx(network: nn.Module, images: Tensor, file: Path, metadata: Metadata) -> None:
    import onnx

    write_onnx(network, images, file, str(metadata["model"]))
    written = onnx.load(file)
    texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in metadata.items()}
    onnx.helper.set_model_props(written, texts)
    onnx.save(written, file)


def _open_onnx(file: Path) -> Scorer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def score(images: Tensor) -> Tensor:
        (found,) = session.run(["scores"], {"images": images.numpy()})
        return torch.from_numpy(found)

    return score


class _Checked(nn.Module):
    """A traced network, which would take any dtype for the one it was traced with."""

    def __init__(self, traced: nn.Module, like: Tensor) -> None:
        super().__init__()
        self.traced = traced
        self.dtype = like.dtype
        self.dims = list(like.shape[1:])

    def forward(self, images: Tensor) -> Tensor:
        """The scores of raw images."""
        if images.dtype != self.dtype or images.dim() != 4 or list(images.shape[1:]) != self.dims:
            raise ValueError("images: not of the dtype and (C, H, W) that this network takes")
        scores: Tensor = self.traced(images)
        return scores


def _write_torchscript(network: nn.Module, images: Tensor, file: Path, metadata: Metadata) -> None:
    with refusing(metadata, "TorchScript"), torch.no_grad(), file.open("wb") as opened:
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, images, check_trace=False
        )
        scripted = torch.jit.script(_Checked(traced, images))
        torch.jit.save(scripted, opened, _extra_files={METADATA: json.dumps(metadata)})


def _open_torchscript(file: Path) -> Scorer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises its newer formats
        scorer: Scorer = torch.jit.load(file)  # type: ignore[no-untyped-call]
    return scorer


def _write_exported(network: nn.Module, images: Tensor, file: Path, metadata: Metadata) -> None:
    with refusing(metadata, "an ExportedProgram"):
        shapes = ({0: torch.export.Dim("N")},)
        program = torch.export.export(network, (images,), dynamic_shapes=shapes)
        with file.open("wb") as opened:
            torch.export.save(program, opened, extra_files={METADATA: json.dumps(metadata)})


def _open_exported(file: Path) -> Scorer:
    with file.open("rb") as opened:
        scorer: Scorer = torch.export.load(opened).module()
    return scorer


@contextmanager
def refusing(metadata: Metadata, what: str) -> Iterator[None]:
    """Say in one line that a network cannot be written so, without torch's own warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OSError, UserError):
        raise
    except Exception as error:  # tracing runs the user's own code
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{metadata['model']} cannot be written as {what}: {line}") from error


FORMATS = {
    "onnx": Format(_write_onnx, _open_onnx, "onnxruntime"),
    "torchscript": Format(_write_torchscript, _open_torchscript, "torch.jit"),
    "exported": Format(_write_exported, _open_exported, "torch.export"),
}
