"""Damage to a file of tensors is found before anything in it is used."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import tensor_file
from sixfold.core.tensor_file import CHECKSUMS, open_tensors, pack, read_metadata

METADATA = {"sixfold": json.dumps({"classes": ["a", "b"]}), "note": "é"}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a1": torch.randn(3, 4, generator=generator),
        "a2": torch.randn(3, 4, generator=generator),
        "wide": torch.randn(5, generator=generator, dtype=torch.float64).reshape(5, 1),
        "turned": torch.randn(2, 3, generator=generator).T,
        "half": torch.ones(3, dtype=torch.bfloat16),
        "kept": torch.tensor([True, False, True]),
        "count": torch.tensor(7),
        "nothing": torch.zeros(0, 2),
    }


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with open_tensors(path) as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found, read_metadata(path)


def is_equal(found: dict[str, Tensor]) -> bool:
    return found.keys() == tensors().keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in tensors().items()
    )


def test_any_reader_of_safetensors_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(pack(tensors(), METADATA))
    assert is_equal(load_file(path))
    assert read(path)[1] == METADATA


def test_a_file_without_checksums_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    plain = {name: tensor.contiguous() for name, tensor in tensors().items()}
    save_file(plain, path, METADATA)
    assert is_equal(read(path)[0])


@given(place=st.integers(0, len(pack(tensors(), METADATA)) - 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "file.safetensors"
    data = bytearray(pack(tensors(), METADATA))
    data[place] ^= flip
    path.write_bytes(data)
    try:
        found, metadata = read(path)
    except SafetensorError:
        return
    assert is_equal(found)
    assert {name: metadata.get(name) for name in METADATA} == METADATA


def swap(header: dict[str, object]) -> None:
    header["a1"], header["a2"] = header["a2"], header["a1"]


def rename(header: dict[str, object]) -> None:
    header["a3"] = header.pop("a1")


def reshape(header: dict[str, object]) -> None:
    header["a1"] = header["a1"] | {"shape": [4, 3]}  # type: ignore[operator]


def retype(header: dict[str, object]) -> None:
    header["a1"] = header["a1"] | {"dtype": "I32"}  # type: ignore[operator]


@pytest.mark.parametrize("change", [swap, rename, reshape, retype])
def test_a_changed_header_is_refused(
    tmp_path: Path, change: Callable[[dict[str, object]], None]
) -> None:
    path = tmp_path / "file.safetensors"
    data = pack(tensors(), METADATA)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(SafetensorError):
        read(path)


@pytest.mark.parametrize("kept", [0, 5, 8, 100, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(pack(tensors(), METADATA)[:kept])
    with pytest.raises(SafetensorError):
        read(path)


def test_large_tensors_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "BLOCK_BYTES", 7)
    path = tmp_path / "file.safetensors"
    path.write_bytes(pack(tensors(), {}))
    assert is_equal(read(path)[0])
    with open_tensors(path) as file:
        assert set(json.loads(file.metadata()[CHECKSUMS])["tensors"]) == tensors().keys()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(2.5, dtype=torch.float64).expand(1),
        torch.tensor(2.5).expand(1, 1),
        torch.arange(6.0).reshape(2, 3).T,
        torch.empty(0, 3),
        torch.tensor(7),
    ],
    ids=["expanded value", "expanded value of two dims", "transposed", "empty", "scalar"],
)
def test_tensors_of_any_layout_are_written(tmp_path: Path, tensor: Tensor) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(pack({"x": tensor}, {}))
    with open_tensors(path) as file:
        assert torch.equal(file.get_tensor("x"), tensor)
