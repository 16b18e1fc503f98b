"""Checkpoints: everything a run needs to go on, in one file written all at once.

A checkpoint is a safetensors file. Its tensors are the network's state by name (``model.<name>``)
and the optimizer's (``optimizer.<slot>.<parameter>``), whole and in the network's own shapes, so
that another number of workers, engine or division can take it up. Counters are in its metadata.
Random state needs no saving: every draw follows from the seed and the step.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sixfold.core import tensor_file
from sixfold.core.errors import UserError
from sixfold.core.files import write_atomically
from sixfold.core.run_directory import read_whole_json
from sixfold.training.progress import Progress
from sixfold.training.step.arithmetic import arithmetic
from sixfold.training.step.averaging import AVERAGE
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer

FORMAT = 1
WEIGHTS = "model.safetensors"  # of a run, in its directory


def weights_sha256(tensors: dict[str, Tensor]) -> str:
    """A hash over the tensors' names, shapes, dtypes and bytes, in the order of the names.

    >>> weights_sha256({"a": torch.zeros(2)})[:8]
    '7f8733f8'
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{list(tensor.shape)}\0{dtype}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def refuse_swapped(file: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse a run's weights that are whole, but not those of which its result tells."""
    remedy = "put it back, or copy the weights alone to another folder"
    result = file.with_name("result.json")
    found = read_whole_json(result, remedy) if file.name == WEIGHTS else None
    told = (found or {}).get("weights_sha256")
    if isinstance(told, str) and told != (actual := weights_sha256(tensors)):
        raise UserError(
            f"{file} holds other weights ({actual[:12]}...) than {result} tells of "
            f"({told[:12]}...): it is another run's, or was changed; {remedy}"
        )


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The network's parameters and buffers by name, each a contiguous tensor of its own."""
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return folder / f"step-{step:09d}.safetensors"


def step_of(path: Path) -> int:
    """After how many steps a checkpoint was written.

    >>> step_of(path_of(Path(), 12))
    12
    """
    return int(path.stem.removeprefix("step-"))


def save_checkpoint(
    folder: Path,
    progress: Progress,
    state: FlatState,
    optimizer: Optimizer,
    *,
    keep: int,
    extra: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a checkpoint, then remove all but the last `keep` and the best.

    `extra` are tensors that a strategy needs to go on, for `load_extra`; `notes` are kept in the
    metadata, for `read_notes`. A `RunError` if it cannot be written: older checkpoints stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": t for name, t in model_tensors(state.model).items()}
    for slot, vector in optimizer.slots.items():
        for name, view in state.named_views(vector):
            tensors[f"optimizer.{slot}.{name}"] = view.clone()
    tensors |= {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
    metadata = {**(notes or {}), **counters(progress, optimizer)}
    path = path_of(folder, progress.step)
    write_atomically(path, tensor_file.pack(tensors, metadata))
    for old in list_checkpoints(folder)[:-keep]:
        if old != path_of(folder, progress.best_step):
            old.unlink(missing_ok=True)
    return path


def counters(progress: Progress, optimizer: Optimizer) -> dict[str, str]:
    """The metadata of a checkpoint that is written here and now."""
    return {
        "format": str(FORMAT),
        "progress": json.dumps(asdict(progress)),
        "updates": str(optimizer.updates),
        "arithmetic": json.dumps(arithmetic()),
    }


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted(
        path
        for path in folder.glob("step-*.safetensors")
        if re.fullmatch(r"step-\d{9,}\.safetensors", path.name)
    )


def newest_intact(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is as it was written; None if there are none at all.

    Damaged ones that are newer get another name, so that they are not counted among those to keep,
    and `tell` gets a line about each; a `UserError` if all are damaged: none is renamed then.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            with tensor_file.open_tensors(path):
                pass
        except (SafetensorError, OSError) as error:
            damaged.append((path, str(error)))
            continue
        for other, why in damaged:
            tell(f"{other} is damaged ({why}): going on from {path.name}, the one before")
            other.rename(other.with_name(other.name + ".damaged"))
        return path
    if damaged:
        path, why = damaged[0]
        raise UserError(
            f"{path} is damaged ({why}), and no older checkpoint is whole: train again with "
            "--overwrite"
        )
    return None


def read_notes(path: Path) -> dict[str, str]:
    """A checkpoint's metadata, with the `notes` saved along; a `UserError` if it is damaged."""
    try:
        return tensor_file.read_metadata(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it to go on from an older checkpoint"
        ) from error


def load_checkpoint(path: Path, state: FlatState, optimizer: Optimizer) -> Progress:
    """Put a checkpoint's tensors in place; a `UserError` if it is damaged or of another network."""
    try:
        with tensor_file.open_tensors(path) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != str(FORMAT):
                raise UserError(
                    f"{path} has checkpoint format {metadata.get('format')}, this version of "
                    f"Sixfold reads {FORMAT}"
                )
            _restore(file, state, optimizer)
            optimizer.updates = int(metadata["updates"])
            return Progress(**json.loads(metadata["progress"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is damaged or belongs to another network ({error}): remove it to go on from "
            "an older checkpoint"
        ) from error


def load_extra(path: Path) -> dict[str, Tensor]:
    """What else a strategy has saved in its checkpoint; a `UserError` if the file is damaged."""
    try:
        with tensor_file.open_tensors(path) as file:
            names = [name for name in file.keys() if name.startswith("extra.")]  # noqa: SIM118
            return {name.removeprefix("extra."): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it to go on from an older one") from (
            error
        )


def _restore(file: Any, state: FlatState, optimizer: Optimizer) -> None:
    own = state.model.state_dict()
    for name, tensor in own.items():
        tensor.copy_(file.get_tensor(f"model.{name}"))
    new = begin_new(set(file.keys()), state, optimizer)
    for slot, vector in optimizer.slots.items():
        for name, view in state.named_views(vector):
            if name not in new:
                view.copy_(file.get_tensor(f"optimizer.{slot}.{name}"))


def begin_new(saved: Collection[str], state: FlatState, optimizer: Optimizer) -> set[str]:
    """Let the update rule begin with parameters that were frozen when a checkpoint was written.

    Args:
        saved: names of the checkpoint's tensors.
        state: the network's, with the weights of the checkpoint.
        optimizer: whose state is as new.

    Returns:
        Names of these parameters. None where the checkpoint has no parameter's state: it belongs
        to another update rule.
    """
    slots, weights = optimizer.slots, dict(state.named_views(state.parameters))
    new = {
        name
        for name in weights
        if slots and not any(f"optimizer.{slot}.{name}" in saved for slot in slots)
    }
    if len(new) == len(weights):
        return set()
    if AVERAGE in slots:
        for name, view in state.named_views(slots[AVERAGE]):
            if name in new:
                view.copy_(weights[name])
    return new
