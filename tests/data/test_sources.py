from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.data.sources import locate
from sixfold.data.spec import parse_spec


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


MNIST = "train-images-idx3-ubyte.gz"
DOWNLOADS = (MNIST, "cifar10-jpeg.tar.xz", "bccd.tar.gz", "README.md", "photos/me.jpg")


@pytest.mark.parametrize(
    ("kind", "names", "found"),
    [
        ("mnist", DOWNLOADS, ""),
        ("cifar10", DOWNLOADS, "cifar10-jpeg.tar.xz"),
        ("cells", DOWNLOADS, "bccd.tar.gz"),
        ("mnist", (f"MNIST/raw/{MNIST}", "x"), "MNIST/raw"),
        ("mnist", ("my-mnist.zip", "other.zip"), "my-mnist.zip"),
        ("mnist", (f"FashionMNIST/raw/{MNIST}", f"MNIST/raw/{MNIST}"), "MNIST/raw"),
        ("mnist", ("fashion-mnist.zip", "mnist.zip"), "mnist.zip"),
        ("cifar10", ("data_batch_1", "test_batch"), ""),
        ("cifar10", ("cifar-10-batches-py/data_batch_1", "cifar-10-python.tar.gz"),
         "cifar-10-batches-py"),
        ("cifar10", ("cifar-10-batches-bin/test_batch.bin",), "cifar-10-batches-bin"),
        ("cifar10", ("cifar10-jpeg.tar", "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
         "cifar-10-python.tar.gz"),
        ("cifar10", ("cifar10/train/cat/0.jpg",), "cifar10"),
        ("cifar10", ("cifar-100-python.tar.gz", "cifar-10-python.tar.gz"),
         "cifar-10-python.tar.gz"),
        ("cifar10", ("train/cat/0.jpg",), ""),
        ("cells", ("BCCD/Annotations/a.xml", "x.tar"), "BCCD"),
        ("cells", ("Annotations/a.xml",), ""),
        ("cells", ("only.zip", "notes.txt"), "only.zip"),
        ("folder", ("pets.zip",), "pets.zip"),
        ("folder", ("pets.zip", "cat/0.png"), ""),
        ("parquet", ("a.parquet", "b.zip"), ""),
    ],
)  # fmt: skip
def test_a_set_is_found_among_other_files(
    tmp_path: Path, kind: str, names: tuple[str, ...], found: str
) -> None:
    touch(tmp_path, *names)
    assert locate(parse_spec(f"{kind}:{tmp_path}")) == str(tmp_path / found)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mnist", (f"FashionMNIST/raw/{MNIST}", f"KMNIST/raw/{MNIST}")),
        ("mnist", ("fashion-mnist.zip", "kmnist.tar")),
        ("cells", ("VOC2007/Annotations/a.xml", "VOC2012/Annotations/a.xml")),
    ],
)
def test_none_of_several_sets_is_taken(tmp_path: Path, kind: str, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    with pytest.raises(UserError, match=r"holds several sets \(.*, .*\): give the path of one"):
        locate(parse_spec(f"{kind}:{tmp_path}"))


@pytest.mark.parametrize("kind", ["mnist", "cifar10", "cells"])
def test_what_is_missing_is_told(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "a.txt", "b/c.txt")
    with pytest.raises(UserError, match=r"expected .*; it holds a\.txt, b$"):
        locate(parse_spec(f"{kind}:{tmp_path}"))
    with pytest.raises(UserError, match="no such file or folder"):
        locate(parse_spec(f"{kind}:{tmp_path}/none"))
