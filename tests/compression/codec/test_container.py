import struct
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compression.codec.test_tensors import pruned
from torch import Tensor

from sixfold.compression.codec import container
from sixfold.compression.codec.streams import CODERS
from sixfold.compression.codec.wire import DamagedError
from sixfold.core.errors import UserError

TENSORS: dict[str, Tensor] = {
    "conv.weight": pruned((8, 4, 3, 3), 0.4, 15),
    "conv.bias": torch.linspace(0, 1, 8),
    "fc.weight": pruned((20, 72), 0.1, 7),
    "raw.weight": pruned((10, 20), 0.3, 0),
    "norm.count": torch.tensor(7),
}
FILES = {coder: container.to_bytes({"card": {}}, TENSORS, coder)[0] for coder in CODERS}


def read(data: bytes) -> dict[str, Tensor]:
    return container.unpack(container.from_bytes(data), TENSORS)


def signed(data: bytes) -> bytes:
    """The bytes with the length and the digest that belong to them: a crafted file."""
    body = data[:10] + struct.pack("<Q", len(data)) + data[18:-16]
    return body + container._digest(body)


@pytest.mark.parametrize("coder", CODERS)
def test_a_file_gives_back_what_was_put_in(coder: str, tmp_path: Path) -> None:
    path = tmp_path / "model.sixz"
    path.write_bytes(FILES[coder])
    assert container.is_container(path)
    found = container.read_container(path)
    assert found.header == {"card": {}}
    assert found.size_bytes == path.stat().st_size
    for name, tensor in container.unpack(found, TENSORS).items():
        assert torch.equal(tensor, TENSORS[name])


@given(st.sampled_from(CODERS), st.data())
def test_any_flipped_byte_is_refused(coder: str, data: st.DataObject) -> None:
    whole = bytearray(FILES[coder])
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedError):
        read(bytes(whole))


@given(st.sampled_from(CODERS), st.data())
def test_any_truncation_or_addition_is_refused(coder: str, data: st.DataObject) -> None:
    whole = FILES[coder]
    with pytest.raises(DamagedError):
        read(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DamagedError):
        read(whole + data.draw(st.binary(min_size=1, max_size=20)))


@settings(max_examples=4 * settings().max_examples)
@given(st.sampled_from(CODERS), st.data())
def test_crafted_bytes_with_a_right_digest_are_refused_or_harmless(
    coder: str, data: st.DataObject
) -> None:
    whole = bytearray(FILES[coder])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 17))
        whole[place] = data.draw(st.integers(0, 255))
    try:
        found = read(signed(bytes(whole)))
    except DamagedError:
        return
    # What is let through has the network's own names, dtypes and shapes.
    assert {n: (t.dtype, t.shape) for n, t in found.items()} == {
        n: (t.dtype, t.shape) for n, t in TENSORS.items()
    }


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(DamagedError):
        read(noise)
    with pytest.raises(DamagedError):
        read(signed(container.MAGIC + b"\x01\x00" + noise.ljust(40, b"\0")))


def test_other_tensors_than_the_network_s_are_refused_before_they_are_unfolded() -> None:
    found = container.from_bytes(FILES["ans"])
    for changed in (
        {name: tensor for name, tensor in TENSORS.items() if name != "conv.bias"},
        TENSORS | {"more": torch.zeros(1)},
        TENSORS | {"fc.weight": torch.zeros(72, 20)},
        TENSORS | {"conv.bias": torch.zeros(8, dtype=torch.float64)},
    ):
        with pytest.raises(DamagedError, match=r"in the file and .* in the network"):
            container.unpack(found, changed)


def test_a_small_file_cannot_ask_for_much_memory() -> None:
    giant = torch.empty((1 << 20, 1 << 20), device="meta")
    body = bytes([3, 0, 5, 0]) + b"\0\0" + b"\0\0"  # no entries, no values
    record = container._record_head("w", giant, len(body)) + body
    text = zlib.compress(b"{}")
    start = container._FIXED.pack(container.MAGIC, 1, 0, len(text), 1)
    found = container.from_bytes(signed(start + text + record + bytes(16)))
    with pytest.raises(DamagedError, match="absurd"):
        container.unpack(found, {"w": giant})


def test_refusals_are_one_line_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "model.sixz"
    path.write_bytes(FILES["ans"][:-1])
    with pytest.raises(UserError, match="sixfold compress") as caught:
        container.read_container(path)
    assert len(caught.value.problems) == 1
    with pytest.raises(UserError, match="cannot be read"):
        container.read_container(tmp_path / "absent.sixz")
