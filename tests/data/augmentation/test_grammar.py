import pytest

from sixfold.core.errors import UserError
from sixfold.core.settings import build_tree
from sixfold.data.augmentation.grammar import form, parse_augment
from sixfold.data.augmentation.pipeline import Augment
from sixfold.data.augmentation.registry import AUGMENTATIONS
from sixfold.data.augmentation.spec import Chosen
from sixfold.training.config import TrainConfig


@pytest.mark.parametrize(
    ("text", "pad", "flip"),
    [("none", 0, False), ("crop", 4, False), ("crop:2,flip", 2, True), ("flip, crop", 4, True)],
)
def test_crops_and_flips(text: str, pad: int, flip: bool) -> None:
    assert parse_augment(text) == Augment(pad=pad, flip=flip)


def test_the_order_is_that_of_the_registry() -> None:
    found = parse_augment("mixup,erase:0.1,randaugment:1,cutmix:0.5,resized-crop,flip")
    assert found.changes == (
        Chosen("resized-crop", (0.08, 1.0)),
        Chosen("randaugment", (1.0, 9.0)),
        Chosen("erase", (0.1,)),
    )
    assert found.mixes == (Chosen("mixup", (0.2,)), Chosen("cutmix", (0.5,)))
    assert found.flip


def test_in_python_a_list_is_the_same() -> None:
    listed = build_tree(TrainConfig, {"augment": ["crop:4", "flip"]})
    assert listed == build_tree(TrainConfig, {"augment": "crop:4,flip"})


def test_every_row_is_read_by_its_name_and_in_full() -> None:
    for name, row in AUGMENTATIONS.items():
        written = ":".join([name, *(f"{each.default:g}" for each in row.settings)])
        assert parse_augment(name) == parse_augment(written)
        assert form(name).startswith(name)


def test_all_problems_are_told_at_once() -> None:
    text = "crop:0,flip:3,zoom,erase:x,flip,randaugment:1.5,none,mixup:nan,rotate:999"
    text += ",flip-alternate"
    with pytest.raises(UserError) as error:
        parse_augment(text)
    lines = error.value.problems
    assert all(line.startswith("--augment ") and "\n" not in line for line in lines)
    for said in (
        "crop:0: PAD is '0': expected a whole number from 1 to 9999",
        "flip:3: expected flip",
        "unknown augmentation 'zoom'",
        "erase:x: P is 'x': expected a number from 0.01 to 1",
        "flip stands there twice",
        "flip and flip-alternate exclude each other",
        "randaugment:1.5: N is '1.5': expected a whole number",
        "none stands alone",
        "mixup:nan: ALPHA",
        "rotate:999: DEGREES is '999'",
    ):
        assert sum(said in line for line in lines) == 1, said
    assert len(lines) == 10


@pytest.mark.parametrize("text", ["", "randaugmnt", "crop:-1", "flip,", "crop:4:4"])
def test_one_problem_is_one_line(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_augment(text)
    assert len(error.value.problems) == 1
