from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sixfold.core.errors import UserError
from sixfold.data.file_tree import open_tree
from sixfold.data.formats import folder
from sixfold.data.records import FileRecords, Listing

FolderMaker = Callable[..., Path]


def read(path: Path, **options: list[str]) -> Listing:
    return folder.read(open_tree(str(path), path), "mine", **options)


def names(listing: Listing, part: str) -> list[str]:
    records = listing.parts[part]
    assert isinstance(records, FileRecords)
    return list(records.names)


def test_parts_come_from_folders(image_folder: FolderMaker) -> None:
    listing = read(image_folder({"train/b": 2, "train/a": 1, "test/a": 1, "val/b": 1}))
    assert listing.classes == ("a", "b")
    assert names(listing, "train") == ["train/a/0000.png", "train/b/0000.png", "train/b/0001.png"]
    assert names(listing, "test") == ["test/a/0000.png"]
    assert listing.parts["train"].labels.tolist() == [0, 1, 1]


def test_validation_stands_in_for_a_missing_test(image_folder: FolderMaker) -> None:
    listing = read(image_folder({"Training/a": 2, "Training/b": 2, "valid/a": 1, "valid/b": 1}))
    assert names(listing, "test") == ["valid/a/0000.png", "valid/b/0000.png"]
    assert listing.split == "folders Training, valid"


@pytest.mark.parametrize("prefix", ["", "train/", "wrapped/inside/", "wrapped/train/"])
def test_without_a_test_part_one_is_cut(image_folder: FolderMaker, prefix: str) -> None:
    listing = read(image_folder({f"{prefix}a": 10, f"{prefix}b": 5}))
    assert np.bincount(listing.parts["test"].labels).tolist() == [2, 1]
    train, test = set(names(listing, "train")), set(names(listing, "test"))
    assert not train & test
    assert len(train | test) == 15


def test_numbers_are_in_their_own_order(image_folder: FolderMaker) -> None:
    listing = read(image_folder({str(number): 1 for number in (10, 9, 2)}))
    assert listing.classes == ("2", "9", "10")


def test_only_hidden_files_are_no_images(image_folder: FolderMaker) -> None:
    source = image_folder({"train/a/deep/er": 1, "train/b": 1, "train/.git": 1, "test/a": 1})
    for name in ("train/a/.DS_Store", "train/b/Thumbs.db", "README.md", "train/labels.csv"):
        (source / name).write_text("x")
    (source / "train/b/notes.txt").write_text("x")
    listing = read(source)
    assert names(listing, "train") == [
        "train/a/deep/er/0000.png", "train/b/0000.png", "train/b/notes.txt"
    ]  # fmt: skip


def test_empty_classes_are_listed(image_folder: FolderMaker) -> None:
    source = image_folder(
        {"train/a": 1, "train/b": 0, "train/c": 0, "test/a": 1, "test/b": 0, "test/d": 1}
    )
    with pytest.raises(UserError) as error:
        read(source)
    train, test = error.value.problems
    assert "classes with no images in the train part: b, c, d" in train
    assert "classes with no images in the test part: b" in test


@pytest.mark.parametrize("counts", [{}, {"a": 3}, {"train/a": 1, "test/a": 1}])
def test_what_is_no_set_of_classes_is_told(
    image_folder: FolderMaker, counts: dict[str, int]
) -> None:
    source = image_folder(counts or {"x/.hidden": 1})
    with pytest.raises(UserError, match="expected train/<class>/"):
        read(source)


def test_given_classes_are_all_there_are(image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 5, "dog": 5, "cow": 5})
    listing = read(source, classes=["dog", "cat", "cow"])
    assert listing.classes == ("dog", "cat", "cow")
    with pytest.raises(UserError, match="classes cow are none of mine's"):
        read(source, classes=["dog", "cat"])
    with pytest.raises(UserError, match="no images in the train part: bee"):
        read(source, classes=["dog", "cat", "cow", "bee"])
