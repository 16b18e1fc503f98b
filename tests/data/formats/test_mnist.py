import gzip
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.data import open_data, resolve
from sixfold.data.config import DataConfig


def idx(values: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">I{values.ndim}I", 0x0800 | values.ndim, *values.shape)
    return header + values.tobytes()


def write(folder: Path, *, packed: bool, separator: str = "-") -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, count in (("train", 40), ("t10k", 12)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        for what, values in (
            ("images", rng.integers(0, 256, (count, 5, 4), np.uint8)),
            ("labels", labels),
        ):
            arrays[f"{part}-{what}"] = values
            name = f"{part}-{what}{separator}idx{values.ndim}-ubyte"
            data = idx(values)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("separator", ["-", "."])
def test_the_four_files_are_read(tmp_path: Path, packed: bool, separator: str) -> None:
    arrays = write(tmp_path / "set", packed=packed, separator=separator)
    dataset = open_data(resolve(DataConfig(data=f"mnist:{tmp_path / 'set'}"), cache=tmp_path))
    assert dataset.shape == (1, 5, 4)
    assert dataset.classes == tuple("0123456789")
    for part, stem in ((dataset.train, "train"), (dataset.test, "t10k")):
        everything = np.arange(len(part))
        assert (part.images(everything)[:, 0] == arrays[f"{stem}-images"]).all()
        assert (part.labels == arrays[f"{stem}-labels"]).all()
        assert part.names(everything[:1]) == [f"{stem}-images[0]"]


@pytest.mark.parametrize("folder", ["{0}/{0}", "archive/{0}/{1}", "raw/{1}"])
def test_files_unpacked_by_kaggle_are_found(tmp_path: Path, folder: str) -> None:
    arrays = write(tmp_path / "set", packed=False)
    for file in list((tmp_path / "set").iterdir()):
        other = file.name.replace("-idx", ".idx")
        target = tmp_path / "mnist" / folder.format(file.name, other)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w") as archive:
        for file in (tmp_path / "mnist").rglob("*ubyte"):
            archive.write(file, file.relative_to(tmp_path / "mnist"))
    for where in ("mnist", "mnist.zip"):
        dataset = open_data(resolve(DataConfig(data=f"mnist:{tmp_path / where}"), cache=tmp_path))
        assert (dataset.train.images(np.arange(40))[:, 0] == arrays["train-images"]).all()
        assert dataset.test.names(np.arange(1)) == ["t10k-images[0]"]


@pytest.mark.parametrize("count", [2**27, 2**31])
def test_what_a_header_does_not_say_is_not_unpacked(tmp_path: Path, count: int) -> None:
    write(tmp_path / "set", packed=True)
    header = struct.pack(">4I", 0x0803, 40, 5, 4) if count == 2**27 else b""
    header = header or struct.pack(">4I", 0x0803, count // 16, 4, 4)
    bomb = gzip.compress(header + bytes(2**27))
    (tmp_path / "set" / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"its header says"):
        resolve(DataConfig(data=f"mnist:{tmp_path / 'set'}"), cache=tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_they_may_be_in_an_archive(tmp_path: Path) -> None:
    arrays = write(tmp_path / "set", packed=False)
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "set").iterdir():
            archive.write(file, f"MNIST/raw/{file.name}")
    dataset = open_data(resolve(DataConfig(data=f"mnist:{tmp_path / 'mnist.zip'}"), cache=tmp_path))
    assert (dataset.train.images(np.arange(40))[:, 0] == arrays["train-images"]).all()


def hurt(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (IMAGES, b"", "only 0 bytes"),
        (IMAGES, struct.pack(">4I", 0x0801, 40, 5, 4), "begins with 0x00000801: idx images begin"),
        (IMAGES, struct.pack(">4I", 0x0803, 40, 5, 4) + bytes(799), "header says 40x5x4, that is"),
        (IMAGES, struct.pack(">4I", 0x0803, 40, 5, 4) + bytes(801), "header says 40x5x4, that is"),
        (IMAGES, struct.pack(">4I", 0x0803, 0, 5, 4), "expected 1 to"),
        (IMAGES, struct.pack(">4I", 0x0803, *[2**32 - 1] * 3), "expected 1 to"),
        (IMAGES, struct.pack(">4I", 0x0803, 39, 5, 4) + bytes(780), "40 labels for the 39 images"),
        (LABELS, struct.pack(">2I", 0x0801, 40) + bytes([10] * 40), "labels up to 10"),
        (LABELS, struct.pack(">2I", 0x0801, 40) + bytes([9] * 40), "classes with no images"),
        (LABELS, b"\x1f\x8b" + bytes(90), "begins with 0x1f8b0000"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_told(tmp_path: Path, name: str, data: bytes, reason: str, packed: bool) -> None:
    write(tmp_path / "set", packed=packed)
    file = tmp_path / "set" / (f"{name}.gz" if packed else name)
    file.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(UserError, match=reason):
        resolve(DataConfig(data=f"mnist:{tmp_path / 'set'}"), cache=tmp_path)


def test_damaged_compression_is_told(tmp_path: Path) -> None:
    write(tmp_path / "set", packed=True)
    file = tmp_path / "set" / f"{IMAGES}.gz"
    whole = file.read_bytes()
    for data in (whole[:200], whole[:-6] + b"x" + whole[-5:], b"plain text", b""):
        file.write_bytes(data)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: (damaged|only 0)"):
            resolve(DataConfig(data=f"mnist:{tmp_path / 'set'}"), cache=tmp_path)


def test_all_missing_files_are_told(tmp_path: Path) -> None:
    write(tmp_path / "set", packed=False)
    (tmp_path / "set" / LABELS).unlink()
    (tmp_path / "set" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError) as error:
        resolve(DataConfig(data=f"mnist:{tmp_path / 'set'}"), cache=tmp_path)
    assert [problem.split(": no ")[1].split()[0] for problem in error.value.problems] == [
        "train-labels-idx1-ubyte[.gz]", "t10k-images-idx3-ubyte[.gz]"
    ]  # fmt: skip


def test_real_mnist(shared_data: Path, tmp_path: Path) -> None:
    resolved = resolve(DataConfig(data=f"mnist:{shared_data}", validation=0.1), cache=tmp_path)
    dataset = open_data(resolved)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (54000, 6000, 10000)
    whole = open_data(DataConfig(data=resolved.data))
    # Published figures of the 60,000.
    assert round(float(whole.mean[0]), 4) == 0.1307
    assert round(float(whole.std[0]), 4) == 0.3081
    assert whole.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
