"""Weights that other programs wrote: PyTorch's files, read without running code, and what is none.

PyTorch's ``.pth`` is a pickle, which may run anything. torch's restricted unpickler takes tensors,
containers and plain values out of it, and refuses the rest.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
"""Where training scripts put a network's state beside the optimizer's and their own."""

WRAPPERS = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""

TORCH = "PyTorch's weights"
SAVE = "save its weights with torch.save(model.state_dict(), FILE)"

_SIGNATURES = (
    (0, b"\x89SIXZ", "a compressed network of Sixfold"),
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (4, b"TFL3", "a TensorFlow Lite network"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x1f\x8b", "a gzip file"),
    (257, b"ustar", "a tar archive"),
    (0, b"version https://git-lfs", "a pointer to a file in Git LFS (run `git lfs pull`)"),
    (0, b"<", "a page of HTML or XML (a download that went wrong?)"),
    (0, b"{", "a JSON file"),
)


def kind_of(file: Path) -> str:
    """What a file is that is not what was hoped for, by its content; empty if that is not known."""
    if file.is_dir():
        return "a folder without model.safetensors"
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        head = opened.read(512)
    size = file.stat().st_size
    if size == 0:
        return "an empty file (0 bytes)"
    if zipfile.is_zipfile(file):
        return _kind_of_zip(file)
    if head.startswith(b"PK\x03\x04"):
        return "a zip file that is damaged or cut off (PyTorch's weights are one, too)"
    if re.match(rb"\x80[\x02-\x05]", head):
        return TORCH  # or any other pickle; the reader will see
    for offset, signature, what in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return what
    if head[8:9] == b"{":
        wanted = 8 + int.from_bytes(head[:8], "little")
        if wanted <= size:
            return ""  # its reader says what is wrong with it
        return f"a safetensors file that is damaged or cut off ({size} bytes, header to {wanted})"
    # A protobuf has no signature; this is the field with which every ONNX network begins.
    return "an ONNX network" if head[:1] == b"\x08" or file.suffix == ".onnx" else ""


def _kind_of_zip(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return "a scripted network (TorchScript)"
    if "data.pkl" in last:
        return TORCH
    if "model.weights.h5" in last:
        return "a network of Keras"
    return "NumPy arrays (npz)" if any(name.endswith(".npy") for name in names) else "a zip archive"


def load_state(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """A network's state by name from a PyTorch file, and what was done to get it, for people.

    A `UserError` if the file is damaged, wants to run code, or holds no state.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global:?|class) `?([\w.]+\.[\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(
            f"{file}: holds Python objects besides tensors{what}, which would have to be run and "
            f"are not: {SAVE}"
        ) from None
    except Exception as error:  # a hostile file may make the reader raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{file}: damaged PyTorch file ({reason}): fetch it again") from None
    return _state(file, value)


def _state(file: Path, value: Any) -> tuple[dict[str, Tensor], list[str]]:
    import torch

    done = []
    for key in STATE_KEYS:
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
            done.append(f"entry {key!r}")
            break
    plain = isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )
    if not plain or not value:
        held = ", ".join(map(str, list(value)[:8])) if isinstance(value, Mapping) else ""
        raise UserError(
            f"{file}: holds no state dict, of names and tensors, but {type(value).__name__}"
            f"{f' with {held}' if held else ''}: {SAVE}"
        )
    odd = [n for n, t in value.items() if t.is_quantized or t.layout != torch.strided or t.is_meta]
    if odd:
        raise UserError(f"{file}: {odd[0]} is quantized, sparse or without values: save it dense")
    state = dict(value)
    for prefix in (wrapper for _ in WRAPPERS for wrapper in WRAPPERS):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            done.append(f"{prefix!r} taken off all names")
    return state, done
