"""Files written by ranks that hold parts: the same as if one process had written them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core.tensor_file import read_metadata, verify
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.training.checkpoint import weights_sha256
from sixfold.training.strategies.model_parallel import sharded_file
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import Layout, even, whole
from sixfold.training.strategies.model_parallel.part import Part, undivided
from sixfold.training.strategies.model_parallel.sharded_file import (
    Piece,
    read_parts,
    sha256_of,
    write_parts,
)

MESHES = [Mesh(), Mesh(rows=2, cout=2), Mesh(cout=3, cin=2)]


def parts(mesh: Mesh) -> dict[str, Part]:
    """A convolution's weight, a linear layer's seen as maps, a copied bias and a counter."""
    kernel = (even(5, mesh, ("cout",)), even(3, mesh, ("cin",)), whole(2), whole(2))
    maps = (whole(4), even(2, mesh, ("cout", "cin")), even(3, mesh, ("rows",)), whole(5))
    return {
        "conv": Part((5, 3, 2, 2), Layout(mesh, kernel)),
        "linear": Part((4, 30), Layout(mesh, maps)),
        "bias": undivided(mesh, (4,)),
        "count": undivided(mesh, ()),
    }


def values() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv": torch.randn(5, 3, 2, 2, generator=generator),
        "linear": torch.randn(4, 30, generator=generator, dtype=torch.float64),
        "bias": torch.randn(4, generator=generator),
        "count": torch.tensor(7),
    }


def write(path: Path, mesh: Mesh) -> None:
    def compute(comm: Communicator) -> None:
        pieces = [
            Piece(name, part, part.cut(values()[name], comm.rank))
            for name, part in parts(mesh).items()
        ]
        write_parts(path, comm, pieces, {"note": "kept"})

    with InlineEngine() as engine:
        engine.run_ranks(compute, mesh.size)


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_the_file_holds_the_whole_tensors(
    tmp_path: Path, mesh: Mesh, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_file, "BLOCK_BYTES", block)
    path = tmp_path / "parts.safetensors"
    write(path, mesh)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    verify(path)
    found = load_file(path)
    assert found.keys() == values().keys()
    for name, value in values().items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
    assert read_metadata(path) == {"note": "kept"}
    assert sha256_of(path) == weights_sha256(found)


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_parts_are_read_from_a_file_of_whole_tensors(
    tmp_path: Path, mesh: Mesh, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_file, "BLOCK_BYTES", block)
    path = tmp_path / "whole.safetensors"
    save_file(values(), path)
    for rank in range(mesh.size):
        pieces = [
            Piece(name, part, torch.zeros_like(part.cut(values()[name], rank)))
            for name, part in parts(mesh).items()
        ]
        read_parts(path, rank, pieces)
        for piece in pieces:
            assert torch.equal(piece.value, piece.part.cut(values()[piece.name], rank))


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_shape(path: Path) -> None:
    save_file({**values(), "conv": torch.zeros(5, 3, 2, 3)}, path)


def damage_dtype(path: Path) -> None:
    save_file({**values(), "conv": values()["conv"].double()}, path)


def damage_name(path: Path) -> None:
    save_file({"conv": values()["conv"]}, path)


def damage_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_shape, damage_dtype, damage_name, damage_header]
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "whole.safetensors"
    save_file(values(), path)
    damage(path)
    pieces = [
        Piece(name, part, torch.zeros_like(values()[name])) for name, part in parts(Mesh()).items()
    ]
    with pytest.raises((SafetensorError, ValueError, KeyError)):
        read_parts(path, 0, pieces)
