import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sixfold.core.errors import UserError
from sixfold.data import open_data, resolve
from sixfold.data.archives import list_archive
from sixfold.data.config import DataConfig
from sixfold.data.formats.cifar10 import BATCHES, CLASSES

PER_BATCH = 20


def arrays() -> dict[str, tuple[NDArray[np.uint8], list[int]]]:
    rng = np.random.default_rng(0)
    names = [name for batches in BATCHES.values() for name in batches]
    return {
        name: (
            rng.integers(0, 256, (PER_BATCH, 3072), np.uint8),
            [i % 10 for i in range(PER_BATCH)],
        )
        for name in names
    }


def write_python(folder: Path, protocol: int = 2) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in arrays().items():
        files = [f"{name}_{i}.png".encode() for i in range(PER_BATCH)]
        batch = {b"data": pixels, b"labels": labels, b"filenames": files, b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    meta = {b"label_names": [name.encode() for name in CLASSES]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))


def write_binary(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in arrays().items():
        records = np.column_stack([np.array(labels, np.uint8), pixels])
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def write_folder(folder: Path) -> None:
    for name, (pixels, labels) in arrays().items():
        part = "test" if name == "test_batch" else "train"
        for index, (values, label) in enumerate(zip(pixels, labels, strict=True)):
            file = folder / part / CLASSES[label] / f"{name}-{index:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.reshape(3, 32, 32).transpose(1, 2, 0)).save(file)


WRITERS: dict[str, Callable[[Path], None]] = {
    "cifar-10-batches-py": write_python,
    "cifar-10-batches-bin": write_binary,
    "images": write_folder,
}


def opened(path: Path, cache: Path) -> Any:
    return open_data(resolve(DataConfig(data=f"cifar10:{path}"), cache=cache))


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("packing", ["", "tar.gz", "tar", "zip"])
def test_every_form_gives_the_same_images(tmp_path: Path, form: str, packing: str) -> None:
    WRITERS[form](tmp_path / form)
    path = tmp_path / form
    if packing == "zip":
        import shutil

        path = Path(shutil.make_archive(str(tmp_path / "c"), "zip", tmp_path, form))
    elif packing:
        path = tmp_path / f"c.{packing}"
        with tarfile.open(path, "w:gz" if packing == "tar.gz" else "w:") as archive:
            archive.add(tmp_path / form, form)
    dataset = opened(path, tmp_path)
    assert dataset.classes == CLASSES
    assert (len(dataset.train), len(dataset.test)) == (100, 20)
    expected = {
        values.tobytes(): label
        for pixels, labels in arrays().values()
        for values, label in zip(pixels, labels, strict=True)
    }
    found = {
        image.tobytes(): label
        for part in (dataset.train, dataset.test)
        for image, label in zip(part.images(np.arange(len(part))), part.labels, strict=True)
    }
    assert found == expected


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickles_of_all_protocols_are_read(tmp_path: Path, protocol: int) -> None:
    write_python(tmp_path / "set", protocol)
    dataset = opened(tmp_path / "set", tmp_path)
    pixels, _ = arrays()["data_batch_1"]
    assert (dataset.train.images(np.arange(20)).reshape(20, -1) == pixels).all()
    assert dataset.train.names(np.array([3])) == ["data_batch_1/data_batch_1_3.png"]


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def attacks() -> dict[str, bytes]:
    huge = np.empty(0, np.uint8).__reduce__()[0]

    class Huge:
        def __reduce__(self) -> tuple[Any, ...]:
            return huge, (np.ndarray, (10**15,), b"b")

    import numpy

    return {
        "code": pickle.dumps({b"data": _Attack()}),
        "getattr": b"cbuiltins\ngetattr\n(cos\nsystem\nX\x01\x00\x00\x00atR.",
        "numpy code": b"cnumpy\nload\n(X\x01\x00\x00\x00atR.",
        "memory": pickle.dumps({b"data": Huge(), b"labels": [0]}, protocol=2),
        "object array": pickle.dumps({b"data": numpy.array([_Attack()]), b"labels": [0]}),
        "text": b"this is no pickle",
        "empty": b"",
        "list": pickle.dumps([1, 2]),
        "other keys": pickle.dumps({b"images": 1}),
        "shape": pickle.dumps({b"data": np.zeros((3, 5), np.uint8), b"labels": [0] * 3}),
        "type": pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [0]}),
        "labels": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}),
        "negative": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}),
        "no images": pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}),
    }


@pytest.mark.parametrize("kind", attacks())
def test_a_pickle_can_do_nothing_but_hold_data(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_python(tmp_path / "set")
    (tmp_path / "set" / "data_batch_3").write_bytes(attacks()[kind])
    with pytest.raises(UserError, match="data_batch_3: ") as error:
        opened(tmp_path / "set", tmp_path / "cache")
    assert len(error.value.problems) == 1
    assert not (tmp_path / "attacked").exists()


def test_missing_and_damaged_batches_are_all_told(tmp_path: Path) -> None:
    write_binary(tmp_path / "set")
    (tmp_path / "set" / "data_batch_2.bin").unlink()
    batch = tmp_path / "set" / "data_batch_4.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    (tmp_path / "set" / "test_batch.bin").write_bytes(bytes([77]) * 3073)
    with pytest.raises(UserError) as error:
        opened(tmp_path / "set", tmp_path)
    missing, short, label = error.value.problems
    assert "data_batch_2.bin: no such file" in missing
    assert "no multiple of 3073" in short
    assert "labels from 77 to 77: expected 0 to 9" in label


def test_another_set_is_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("cat", "unicorn"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "set" / "train" / name / "0.png")
    with pytest.raises(UserError) as error:
        opened(tmp_path / "set", tmp_path)
    assert "classes unicorn are none of cifar10's" in error.value.problems[0]
    assert "folder:" in error.value.problems[0]


def test_the_real_archive_is_listed_whole(shared_data: Path, tmp_path: Path) -> None:
    files = list_archive(str(shared_data / "cifar10-jpeg.tar.xz"), tmp_path).files
    assert sum(name.endswith(".jpg") for name in files) == 60_000
    few = sorted(files)[:: len(files) // 40]
    from sixfold.data.byte_ranges import ExtentReader

    with ExtentReader() as reader:
        for name in few:
            assert Image.open(io.BytesIO(reader.read(files[name]))).size == (32, 32)


@pytest.mark.full
def test_the_real_archive_is_prepared_whole(
    shared_data: Path, tmp_path: Path, pool_of: Callable[[int], Any]
) -> None:
    config = DataConfig(data=f"cifar10:{shared_data}")
    dataset = open_data(resolve(config, cache=tmp_path, pool=pool_of(2)))
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    # Published figures of the originals: 0.4914 0.4822 0.4465 and 0.2470 0.2435 0.2616.
    np.testing.assert_allclose(dataset.mean, [0.4914, 0.4822, 0.4465], atol=0.001)
    np.testing.assert_allclose(dataset.std, [0.2470, 0.2435, 0.2616], atol=0.003)
