"""What is a part and what is a class; every file is used or told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.data.file_tree import open_tree
from sixfold.data.formats import folder
from sixfold.data.records import FileRecords, Listing

FolderMaker = Callable[..., Path]


def read(path: Path) -> Listing:
    return folder.read(open_tree(str(path), path), "mine")


def counts(listing: Listing) -> tuple[int, int]:
    return len(listing.parts["train"].labels), len(listing.parts["test"].labels)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("train_images", "val_images"),
        ("Training", "Testing"),
        ("TRAIN", "eval"),
        ("trainset", "testset"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("ILSVRC_img_train", "ILSVRC_img_val"),
        ("train2017", "val2017"),
        ("train-data", "dev"),
        ("archive/trainImages", "archive/validation"),
        ("training_data/train", "training_data/test"),
    ],
)
def test_parts_are_known_by_their_usual_names(
    image_folder: FolderMaker, train: str, test: str
) -> None:
    listing = read(image_folder({f"{p}/{c}": 2 for p in (train, test) for c in ("cats", "dogs")}))
    assert listing.classes == ("cats", "dogs")
    assert counts(listing) == (4, 4)
    assert not listing.left_out


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        ({"train_station": 5, "test_tube": 5}, ("test_tube", "train_station")),
        ({"train": 5, "bus": 5, "car": 5}, ("bus", "car", "train")),
        ({"valid": 5, "invalid": 5}, ("invalid", "valid")),
        ({"train/a/images": 5, "train/b/images": 5}, ("a", "b")),  # Tiny ImageNet
        ({"train/a/images": 5, "train/b": 5}, ("a", "b")),
        ({"a/images": 5, "a/images/x": 2, "b/images": 5, "b/images/x": 2}, ("a", "b")),
        ({"a/images/batch": 5, "b/images/batch": 5}, ("a", "b")),
        ({"with_mask": 5, "mask": 5}, ("mask", "with_mask")),
    ],
)
def test_classes_are_no_parts(
    image_folder: FolderMaker, given: dict[str, int], classes: tuple[str, ...]
) -> None:
    listing = read(image_folder(given))
    assert listing.classes == classes
    assert sum(counts(listing)) == sum(given.values())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], "only the same folders"),
        (["train/x/a", "train/x/b", "train/y/a", "train/y/b"], "only the same folders"),
        (["animals/cat", "animals/dog", "cars/bus"], "lie one level deeper"),
        (["mine/train/a", "mine/test/a", "notes"], "mine: holds parts"),
        (["cat/train", "cat/test", "dog/train", "dog/val"], "each class has parts of its own"),
        (["images", "labels"], "no classes but pictures and what belongs to them"),
        (["Img", "ground_truth"], "no classes but pictures and what belongs to them"),
        (["JPEGImages", "SegmentationClass", "Annotations"], "no classes but pictures"),
        (["train/images", "train/masks", "test/images", "test/masks"], "no classes but pictures"),
        (["training/image_2", "training/gt_image_2"], "no classes but pictures"),
        (
            ["amazon/images/bike", "amazon/images/car", "dslr/images/bike", "dslr/images/car"],
            "same",
        ),
        (["train/Cat", "train/Dog", "test/cat", "test/Dog"], "'cat' and 'Cat' differ only in"),
        (["positive", "negative", "test"], "test lies beside folders of classes"),
        (["train", "test"], "no folders of classes in them"),
        (["train_cats", "train_dogs", "test_cats", "test_dogs"], "differ in the part"),
        (["trainA", "trainB", "testA", "testB"], "differ in the part"),
        (["train"], "no folders of classes in them"),
    ],
)
def test_folders_that_are_no_classes_are_refused(
    image_folder: FolderMaker, given: list[str], reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as error:
        read(image_folder(dict.fromkeys(given, 2)))
    assert len(error.value.problems) == 1


def test_every_file_is_used_or_told(image_folder: FolderMaker) -> None:
    given = {"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1}
    source = image_folder({**given, "val/a": 4, "train": 2, "extra": 1, ".git": 9, "test/.x": 1})
    (source / "README.md").touch()
    listing = read(source)
    assert counts(listing) == (6, 2)
    assert len(listing.parts["validation"].labels) == 4
    none = "in no folder of a class of the parts that are used"
    assert set(listing.left_out) == {
        (".git", "hidden"),
        ("test/.x", "hidden"),
        ("train/", f"2 files: {none}"),
        ("extra/0000.png", none),
        ("README.md", none),
    }


@pytest.mark.parametrize("flat", ["test", "val", "test/images"])
def test_a_test_part_without_classes_is_empty_and_told(
    image_folder: FolderMaker, flat: str
) -> None:
    listing = read(image_folder({"train/a": 3, "train/b": 3, flat: 10}))
    assert counts(listing) == (6, 0)
    told = f"{flat}/", "10 files: in no folder of a class of the parts that are used"
    assert listing.left_out == (told,)
    assert f"{flat.partition('/')[0]} without folders of its classes" in listing.split


def test_labelled_pictures_for_validation_stand_in_for_a_test_part_without_labels(
    image_folder: FolderMaker,
) -> None:
    listing = read(image_folder({"train/a": 3, "train/b": 3, "test": 10, "val/a": 1, "val/b": 1}))
    assert counts(listing) == (6, 2)


def test_a_test_part_that_is_the_training_part_is_read_and_told(image_folder: FolderMaker) -> None:
    source = image_folder({"train/a": 3, "train/b": 3})
    (source / "test").symlink_to(source / "train")
    listing = read(source)
    assert counts(listing) == (6, 6)
    ((name, reason),) = listing.left_out
    assert name == "test/"
    assert "6 of these test files are training files too" in reason


def test_names_that_are_no_text_are_read(image_folder: FolderMaker) -> None:
    source = image_folder({"a": 3, "b": 3})
    odd = b"\xff\xfe.PNG".decode("utf-8", "surrogateescape")
    (source / "a" / "0000.png").rename(source / "a" / odd)
    listing = read(source)
    assert isinstance(listing.parts["train"], FileRecords)
    assert sum(counts(listing)) == 6
