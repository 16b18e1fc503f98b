from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sixfold.core.errors import UserError
from sixfold.data import DataSet, open_data, resolve
from sixfold.data.config import DataConfig

Box = tuple[str, int, int, int, int]
Maker = Callable[..., Image.Image]


def annotation(boxes: Sequence[Box], filename: str = "stale.jpg") -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in boxes
    )
    return f"<annotation><filename>{filename}</filename>{objects}</annotation>"


@pytest.fixture
def slides(tmp_path: Path, picture: Maker) -> Callable[..., Path]:
    """Writes microscope images with boxes in two classes."""

    def write(count: int = 10, test: Sequence[int] = ()) -> Path:
        root = tmp_path / "set"
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(30, 40, "RGB", number).save(root / "JPEGImages" / f"slide{number:02}.png")
            boxes = [("RBC", 2, 3, 12, 13 + number), ("RBC", -4, -4, 9, 9), ("WBC", 20, 10, 55, 99)]
            text = annotation(boxes)
            (root / "Annotations" / f"slide{number:02}.xml").write_text(text)
        if test:
            lines = "".join(f"slide{number:02}\n" for number in test)
            (root / "ImageSets/Main/test.txt").write_text(lines)
        return root

    return write


def opened(root: Path, **settings: float) -> DataSet:
    config = DataConfig(data=f"cells:{root}", **settings)  # type: ignore[arg-type]
    return open_data(resolve(config, cache=root.parent / "cache"))


def slides_of(names: Sequence[str]) -> set[str]:
    return {name.partition("[")[0] for name in names}


def test_crops_are_grey_and_square(slides: Callable[..., Path]) -> None:
    root = slides()
    dataset = opened(root)
    assert dataset.shape == (1, 256, 256)
    assert dataset.classes == ("RBC", "WBC")
    small = opened(root, resize=16)
    everything = np.arange(len(small.train))
    edges = {0: (2, 3, 12), 1: (0, 0, 9, 9), 2: (20, 10, 40, 30)}
    for name, label, image in zip(
        small.train.names(everything),
        small.train.labels,
        small.train.images(everything),
        strict=True,
    ):
        stem, _, rest = name.removeprefix("JPEGImages/").partition(".png[")
        number, place = int(stem.removeprefix("slide")), int(rest.removesuffix("]"))
        box = edges[place] if place else (*edges[0], 13 + number)
        grey = Image.open(root / "JPEGImages" / f"{stem}.png").convert("L").crop(box)  # type: ignore[arg-type]
        expected = np.asarray(grey.resize((16, 16), Image.Resampling.BILINEAR))
        assert (image[0] == expected).all()
        assert label == (place == 2)


def test_no_microscope_image_is_in_two_parts(slides: Callable[..., Path]) -> None:
    dataset = opened(slides(20), validation=0.2, resize=8)
    parts = (dataset.train, dataset.validation, dataset.test)
    named = [slides_of(part.names(np.arange(len(part)))) for part in parts]
    assert [len(names) for names in named] == [13, 3, 4]
    assert len(set.union(*named)) == 20


def test_the_sets_own_list_is_kept(slides: Callable[..., Path]) -> None:
    dataset = opened(slides(test=(3, 5)), resize=8)
    names = slides_of(dataset.test.names(np.arange(len(dataset.test))))
    assert names == {"JPEGImages/slide03.png", "JPEGImages/slide05.png"}


def test_a_list_of_files_is_a_list_of_images_and_one_of_others_is_refused(
    slides: Callable[..., Path],
) -> None:
    root = slides()
    (root / "ImageSets/Main/test.txt").write_text("slide03.png\nJPEGImages/slide05.jpg 1\n")
    dataset = opened(root, resize=8)
    names = slides_of(dataset.test.names(np.arange(len(dataset.test))))
    assert names == {"JPEGImages/slide03.png", "JPEGImages/slide05.png"}
    (root / "ImageSets/Main/test.txt").write_text("other1\nother2\n")
    with pytest.raises(UserError, match="names none of the annotated images"):
        opened(root)


def test_empty_boxes_are_left_out_and_listed(slides: Callable[..., Path]) -> None:
    root = slides()
    boxes: list[Box] = [("RBC", 1, 1, 9, 9), ("WBC", 5, 5, 5, 9), ("WBC", 3, 3, 30, 20)]
    (root / "Annotations" / "slide00.xml").write_text(annotation(boxes))
    dataset = opened(root, resize=8)
    assert dataset.bad == ("JPEGImages/slide00.png[1]: box 5,5 to 5,9 is empty",)
    assert len(dataset.train) + len(dataset.test) == 29


def test_a_box_outside_and_a_broken_image_are_bad(slides: Callable[..., Path]) -> None:
    root = slides()
    boxes: list[Box] = [("RBC", 1, 1, 9, 9), ("WBC", 50, 50, 60, 60), ("WBC", 3, 3, 30, 20)]
    (root / "Annotations" / "slide00.xml").write_text(annotation(boxes))
    (root / "JPEGImages" / "slide04.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        opened(root)
    assert sorted(error.value.problems[:2]) == [
        "JPEGImages/slide00.png[1]: box 50,50 to 60,60 is empty in a picture of 40x30",
        "JPEGImages/slide04.png: zero bytes",
    ]
    config = DataConfig(data=f"cells:{root}", on_error="skip", resize=8)
    dataset = open_data(resolve(config, cache=root.parent / "cache"))
    assert len(dataset.train) + len(dataset.test) == 26


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "not well-formed XML"),
        ("", "not well-formed XML"),
        (annotation([("", 1, 1, 2, 2)]), "object 0 has no name"),
        ("<a><object><name>RBC</name></object></a>", "object 0 has no complete bndbox"),
        (annotation([("RBC", 1, 1, 2, 2)]).replace("<xmax>2", "<xmax>inf"), "no complete bndbox"),
        (annotation([("RBC", 1, 1, 2, 2)]).replace("<xmax>2", "<xmax>wide"), "no complete bndbox"),
        (
            '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
            + "".join(
                f'<!ENTITY {y} "{f"&{x};" * 99}">' for x, y in zip("bcdefg", "cdefgh", strict=True)
            )
            + "]><annotation>&h;</annotation>",
            "not well-formed XML",
        ),
    ],
)
def test_a_broken_annotation_is_told(slides: Callable[..., Path], text: str, reason: str) -> None:
    root = slides()
    (root / "Annotations" / "slide01.xml").write_text(text)
    with pytest.raises(UserError, match=f"slide01.xml: .*{reason}"):
        opened(root)


def test_an_annotation_without_an_image_is_told(slides: Callable[..., Path]) -> None:
    root = slides()
    for number in (2, 7):
        (root / "JPEGImages" / f"slide{number:02}.png").unlink()
    with pytest.raises(UserError) as error:
        opened(root)
    assert len(error.value.problems) == 2
    assert "there is no image slide02.jpg for this annotation" in error.value.problems[0]


def lighter(root: Path, name: str, level: int) -> None:
    """A picture of one grey level, by which its crops are known."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 40), level).save(root / name)


def annotated(root: Path, name: str, filename: str, folder: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    text = annotation([("cat", 1, 1, 9, 9), ("dog", 9, 9, 20, 20)], filename)
    text = text.replace("<filename>", f"<folder>{folder}</folder><filename>")
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("annotations", "filename", "folder", "taken"),
    [
        ("annotations/xmls", "{0}.jpg", "OXIIIT", "images/{0}.jpg"),  # Oxford-IIIT Pet
        ("annotations/xmls", "stale", "", "images/{0}.jpg"),
        ("Annotations", "{0}.png", "Masks", "annotations/masks/{0}.png"),
        ("Annotations/ward", "{0}.jpeg", "", "other/ward/{0}.jpeg"),
        ("Annotations", "C:\\shots\\{0}.JPG", "", "images/{0}.jpg"),
        ("Annotations", "other/deep/{0}.jpeg", "", "other/deep/{0}.jpeg"),
    ],
)
def test_of_pictures_with_one_stem_the_named_one_is_cut(
    tmp_path: Path, annotations: str, filename: str, folder: str, taken: str
) -> None:
    root = tmp_path / "set"
    for stem in "abcdef":
        places = [f"images/{stem}.jpg", f"annotations/trimaps/{stem}.png"]
        places += [f"annotations/masks/{stem}.png", f"other/ward/{stem}.jpeg"]
        places += [f"other/deep/{stem}.jpeg"]
        for place in places:
            lighter(root, place, 200 if place == taken.format(stem) else 10)
        annotated(root, f"{annotations}/{stem}.xml", filename.format(stem), folder)
    dataset = opened(root, resize=8)
    assert dataset.train.images(np.arange(len(dataset.train))).min() >= 199
    assert set(dataset.test.names(np.arange(2))) < {
        f"{taken.format(stem)}[{place}]" for stem in "abcdef" for place in (0, 1)
    }


def test_two_that_are_equally_good_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for stem in "abcdef":
        for place in ("left", "right"):
            lighter(root, f"{place}/{stem}.png", 10)
        annotated(root, f"Annotations/{stem}.xml", f"{stem}.png")
    with pytest.raises(UserError, match=r"a\.xml: there are 2 images for it \(left/a\.png, right"):
        opened(root)
    lighter(root, "only.png", 10)
    for stem in "abcdef":
        annotated(root, f"Annotations/{stem}.xml", "only.png")
    with pytest.raises(UserError, match=r"b\.xml: names only\.png, as Annotations/a\.xml does"):
        opened(root)


def test_annotations_of_one_stem_keep_their_own_pictures(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for ward, level in (("north", 50), ("south", 200)):
        for stem in "abc":
            lighter(root, f"JPEGImages/{ward}/{stem}.png", level)
            annotated(root, f"Annotations/{ward}/{stem}.xml", f"{stem}.png")
        lighter(root, f"JPEGImages/{ward}/spare.png", level)
    dataset = opened(root, resize=8)
    for part in (dataset.train, dataset.test):
        everything = np.arange(len(part))
        for name, image in zip(part.names(everything), part.images(everything), strict=True):
            assert (image == (50 if "north" in name else 200)).all()
    assert len(dataset.train) + len(dataset.test) == 12
    assert dataset.bad == (
        "JPEGImages/north/spare.png: a picture without an annotation in the set that is read",
        "JPEGImages/south/spare.png: a picture without an annotation in the set that is read",
    )


def test_no_annotations_or_one_class_is_told(slides: Callable[..., Path], tmp_path: Path) -> None:
    root = slides(3)
    for file in (root / "Annotations").iterdir():
        file.write_text(annotation([("RBC", 1, 1, 9, 9)]))
    with pytest.raises(UserError, match="annotated with RBC: expected boxes of at least two"):
        opened(root)
    for file in (root / "Annotations").iterdir():
        file.rename(file.with_suffix(".json"))
    with pytest.raises(UserError, match=r"holds no \*.xml .*COCO's JSON and YOLO's text are not"):
        opened(root)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"expected Annotations/\*\.xml"):
        opened(tmp_path / "other")


def test_real_cells(shared_data: Path, tmp_path: Path) -> None:
    config = DataConfig(data=f"cells:{shared_data}", resize=16, validation=0.1)
    dataset = open_data(resolve(config, cache=tmp_path))
    assert dataset.classes == ("Platelets", "RBC", "WBC")
    parts = (dataset.train, dataset.validation, dataset.test)
    assert sum(len(part) for part in parts) == 361 + 4155 + 372 - 2
    assert len(dataset.bad) == 2
    named = [slides_of(part.names(np.arange(len(part)))) for part in parts]
    assert len(named[2]) == 72  # as its own list says
    assert sum(len(names) for names in named) == len(set.union(*named)) == 364
    whole = np.bincount(np.concatenate([dataset.train.labels, dataset.validation.labels]))
    shares = np.bincount(dataset.validation.labels) / whole
    assert (np.abs(shares - 0.1) < 0.02).all()
