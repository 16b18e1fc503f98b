"""Dictionaries: their first atoms, their norm, and the file in which one is kept.

The file is a safetensors file: the atoms, the whitening filter where there is one, and a card in
its metadata that says how images must be prepared and what code the atoms are meant for.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from sixfold.core import random_keys, tensor_file
from sixfold.core.errors import UserError
from sixfold.core.files import parse_json
from sixfold.lca.config import DynamicsConfig
from sixfold.lca.geometry import Geometry
from sixfold.lca.preprocess import Preprocess

FORMAT = "1"
RENAMED = {"threshold": "lambda_", "shrinkage": "threshold_type"}
"""Fields of the dynamics under the names that older files give them."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A dictionary with all that is needed to use it."""

    atoms: Tensor  # (K, C, R, S), each of norm 1
    geometry: Geometry  # for which it was learned
    preprocess: Preprocess  # how images are prepared
    dynamics: DynamicsConfig  # how codes came about
    data: str = ""  # specification of what it was learned from


def normalise(atoms: Tensor) -> Tensor:
    """Atoms (..., C, R, S) of norm 1; one that is nothing at all stays so."""
    norms = atoms.flatten(-3).double().square().sum(-1).sqrt()
    norms = torch.where(norms > 0, norms, 1.0)[..., None, None, None]
    return (atoms.double() / norms).to(atoms.dtype)


def random_atoms(geometry: Geometry, seed: int, dtype: torch.dtype) -> Tensor:
    """Normal random numbers, normalised, (K, C, R, S); the same on every machine."""
    generator = torch.Generator().manual_seed(random_keys.key(seed, "atoms"))
    shape = (geometry.atoms, *geometry.atom_shape)
    return normalise(torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def patch_places(geometry: Geometry, images: int, seed: int) -> list[tuple[int, int, int]]:
    """Where the first atoms are cut out: image, first row, first column of each."""
    (_, height, width), (rows, columns) = geometry.image, geometry.kernel
    found = []
    for atom in range(geometry.atoms):
        draw = [random_keys.key(seed, "patch", atom, what) for what in ("image", "row", "column")]
        found.append(
            (
                draw[0] % images,
                draw[1] % max(height - rows + 1, 1),
                draw[2] % max(width - columns + 1, 1),
            )
        )
    return found


def patch_atoms(geometry: Geometry, seed: int, images: dict[int, Tensor], count: int) -> Tensor:
    """Patches of images less their mean, with a little noise so that no two are equal, normalised.

    `images` are prepared ones (C, H, W) by index, those of `patch_places` out of `count`.
    """
    rows, columns = geometry.kernel
    noise = random_atoms(geometry, seed, torch.float64)
    atoms = noise.clone()
    for atom, (image, row, column) in enumerate(patch_places(geometry, count, seed)):
        patch = images[image][:, row : row + rows, column : column + columns].double()
        patch = patch - patch.mean()
        size = float(patch.square().sum().sqrt())
        if patch.shape == atoms[atom].shape and size > 0:
            atoms[atom] = patch / size + 0.1 * noise[atom]
    return normalise(atoms)


def pack(learned: Learned) -> bytes:
    """The dictionary as the bytes of its file."""
    preprocess = learned.preprocess
    card = {
        "format": FORMAT,
        "geometry": dataclasses.asdict(learned.geometry),
        "dynamics": dataclasses.asdict(learned.dynamics),
        "preprocess": {"kind": preprocess.kind, "mean": list(preprocess.mean)},
        "data": learned.data,
    }
    tensors = {"atoms": learned.atoms}
    if preprocess.whitening is not None:
        tensors["whitening"] = preprocess.whitening
    return tensor_file.pack(tensors, {"sixfold.lca": json.dumps(card)})


def dictionary_file(run: Path) -> Path:
    """The dictionary of a run directory; a path to such a file is taken as it is."""
    if run.is_file():
        return run
    if (run / "dictionary.safetensors").is_file():
        return run / "dictionary.safetensors"
    if not run.exists():
        raise UserError(f"there is no run {run}: give a run directory of `sixfold lca learn`")
    raise UserError(
        f"{run} holds no dictionary.safetensors: the run is not finished (go on with "
        "`sixfold lca learn ... --resume`) or it learned no dictionary"
    )


def load_dictionary(path: Path | str) -> Learned:
    """A dictionary from its file or run directory; a `UserError` if there is none of ours."""
    file = dictionary_file(Path(path).expanduser())
    try:
        with tensor_file.open_tensors(file) as opened:
            card = parse_json((opened.metadata() or {})["sixfold.lca"])
            atoms = opened.get_tensor("atoms")
            names = set(opened.keys())
            whitening = opened.get_tensor("whitening") if "whitening" in names else None
        sizes = card["geometry"]
        pairs = {name: tuple(sizes[name]) for name in ("kernel", "stride", "padding")}
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']}, this version reads {FORMAT}")
        return Learned(
            atoms=atoms,
            geometry=Geometry(**{**sizes, **pairs}),
            preprocess=Preprocess(
                kind=card["preprocess"]["kind"],
                mean=tuple(card["preprocess"]["mean"]),
                whitening=whitening,
            ),
            dynamics=DynamicsConfig(
                **{RENAMED.get(name, name): value for name, value in card["dynamics"].items()}
            ),
            data=card["data"],
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged or no dictionary of `sixfold lca learn` ({error}): learn again, "
            "or give another run"
        ) from error
