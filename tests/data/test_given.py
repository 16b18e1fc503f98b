"""Arrays, data sets and tables that are handed over become one set of shards."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sixfold.core.errors import UserError
from sixfold.data import open_data, prepare, resolve
from sixfold.data.arrays import PixelReader, as_array, batch_channels_first, channels_first
from sixfold.data.config import DataConfig
from sixfold.data.dataset import DataSet
from sixfold.data.given import write_given
from sixfold.data.given_sources import parts_of
from sixfold.data.items import generators, is_random

PIXELS = np.arange(12 * 3 * 5 * 4, dtype=np.int64).reshape(12, 3, 5, 4) * 7 % 256
IMAGES = PIXELS.astype(np.uint8)
LABELS = np.tile([0, 1, 2], 4)


def write(
    tmp_path: Path, *, cut_test: bool = False, on_error: str = "fail", **parts: Any
) -> DataSet:
    config = parts.pop("config", DataConfig())
    found: dict[str, Any] = {}
    for what, thing in parts.items():
        read = parts_of(thing, what, config, tmp_path)
        found |= read if what == "data" else {what: read["train"]}
    return open_data(DataConfig(data=write_given(found, cut_test=cut_test, on_error=on_error)))


def pixels(dataset: DataSet) -> Any:
    return dataset.train.images(np.arange(len(dataset.train), dtype=np.int64))


LAYOUTS: dict[str, Callable[[], Any]] = {
    "N C H W": lambda: IMAGES,
    "N H W C": lambda: IMAGES.transpose(0, 2, 3, 1),
    "tensor": lambda: torch.from_numpy(IMAGES),
    "tensor, channels last": lambda: torch.from_numpy(IMAGES).permute(0, 2, 3, 1),
    "int64": lambda: PIXELS,
    "0 to 255 as float": lambda: IMAGES.astype(np.float32),
    "as ToTensor makes it": lambda: torch.from_numpy(IMAGES).float() / 255,
    "float64": lambda: IMAGES / 255,
    "half": lambda: torch.from_numpy(IMAGES).half() / 255,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_dtype_gives_the_same_pixels(layout: str, tmp_path: Path) -> None:
    dataset = write(tmp_path, data=(LAYOUTS[layout](), LABELS))
    assert dataset.shape == (3, 5, 4)
    assert np.array_equal(pixels(dataset), IMAGES)
    assert dataset.train.labels.tolist() == LABELS.tolist()
    assert dataset.classes == ("0", "1", "2")
    assert len(dataset.test) == 0


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    assert np.array_equal(pixels(write(tmp_path, data=(IMAGES[:, 0], LABELS))), IMAGES[:, :1])


@given(
    shape=st.tuples(*[st.integers(4, 9)] * 2),
    channels=st.sampled_from([1, 3]),
    first=st.booleans(),
    tensor=st.booleans(),
    data=st.data(),
)
def test_the_channels_are_found(
    shape: tuple[int, int], channels: int, first: bool, tensor: bool, data: st.DataObject
) -> None:
    whole = data.draw(hnp.arrays(np.uint8, (2, channels, *shape)))
    images = whole if first else np.moveaxis(whole, 1, 3)
    array, is_tensor = as_array(torch.from_numpy(images.copy()) if tensor else images)
    assert is_tensor is tensor
    assert np.array_equal(batch_channels_first(array, is_tensor=is_tensor), whole)
    assert np.array_equal(channels_first(array[0], is_tensor=is_tensor), whole[0])


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_pixels_survive_floating_point(image: Any) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        assert np.array_equal(PixelReader().read((image / 255).astype(dtype)), image)


def test_where_both_dims_could_be_the_channels_the_library_decides() -> None:
    assert batch_channels_first(np.zeros((2, 3, 8, 3)), is_tensor=True).shape == (2, 3, 8, 3)
    assert batch_channels_first(np.zeros((2, 3, 8, 3)), is_tensor=False).shape == (2, 3, 3, 8)
    assert batch_channels_first(np.zeros((2, 8, 8, 4)), is_tensor=True).shape == (2, 4, 8, 8)


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (np.full_like(IMAGES, np.nan, dtype=float), "NaN"),
        (IMAGES[:, 0, 0], "images of 2 dims"),
        (np.zeros((12, 8, 8, 8), np.uint8), "none of the dims"),
        (IMAGES * 1e39, "NaN or infinite"),
        (IMAGES.astype(str), "images of <U3: expected numbers"),
    ],
)
def test_what_are_no_images_is_refused(images: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why) as caught:
        write(tmp_path, data=(images, LABELS))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("data: ")


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (LABELS.astype(float) * np.nan, "NaN or infinite"),
        (LABELS[:-1], "12 images and 11 labels"),
        (np.zeros((12, 3, 2)), r"expected \(N,\) or \(N, K\)"),
        (LABELS * 0, "1 class: expected at least two"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        write(tmp_path, data=(IMAGES, labels))


def test_numbers_and_several_labels_are_targets(tmp_path: Path) -> None:
    angles = LABELS + 0.25
    one = write(tmp_path, data=(IMAGES, angles), cut_test=True)
    assert (one.kind, one.classes) == ("regression", ("target",))
    assert one.train.targets is not None
    assert one.train.targets.shape == (6, 1)  # of ten ranges each gives one
    rows = {each.tobytes(): angle for each, angle in zip(IMAGES, angles, strict=True)}
    for part in (one.train, one.test):
        images = part.images(np.arange(len(part), dtype=np.int64))
        assert part.targets is not None
        assert [rows[each.tobytes()] for each in images] == part.targets[:, 0].tolist()
    boxes = write(tmp_path, data=Items(lambda i: (IMAGES[i], torch.tensor([i * 0.5, 2.0]))))
    assert (boxes.kind, boxes.classes) == ("regression", ("target_0", "target_1"))
    several = write(tmp_path, data=(IMAGES, np.eye(3, dtype=int)[LABELS]))
    assert several.kind == "multi_label"
    config = DataConfig(target="classes")
    found = parts_of((IMAGES, angles), "data", config, tmp_path)
    with pytest.raises(UserError, match="give loss='mse', 'l1' or 'huber'"):
        write_given(found, cut_test=True, target="classes")
    whole = parts_of((IMAGES, LABELS), "data", config, tmp_path)
    spec = write_given(whole, cut_test=False, target="regression")
    assert open_data(DataConfig(data=spec)).kind == "regression"


def test_names_of_classes_are_kept(tmp_path: Path) -> None:
    names = np.array(["dog", "cat", "eel"])[LABELS]
    dataset = write(tmp_path, data=(IMAGES, names))
    assert dataset.classes == ("cat", "dog", "eel")
    assert [dataset.classes[label] for label in dataset.train.labels] == names.tolist()
    assert write(tmp_path, data=(IMAGES, LABELS + 7)).classes == ("7", "8", "9")
    assert write(tmp_path, data=(IMAGES, LABELS > 0)).classes == ("False", "True")


def test_parts_of_their_own(tmp_path: Path) -> None:
    dataset = write(
        tmp_path,
        data=(IMAGES, LABELS),
        validation=(IMAGES[:2], LABELS[:2]),
        test=(torch.from_numpy(IMAGES[:3]), LABELS[:3]),
    )
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (12, 2, 3)
    with pytest.raises(UserError, match="test: labels that the training images have not: 9"):
        write(tmp_path, data=(IMAGES, LABELS), test=(IMAGES[:1], [9]))
    seven = {"image": [png(i) for i in range(12)], "label": LABELS + 7}
    named = write(tmp_path, data=pa.table(seven), test=(IMAGES[:1], [8]))
    assert named.classes == ("7", "8", "9")
    assert named.test.labels.tolist() == [1]
    cut = write(tmp_path, data=(IMAGES, LABELS), cut_test=True)
    assert (len(cut.train), len(cut.test), cut.own_test) == (9, 3, False)


def test_parts_in_other_units_and_masked_pixels_are_refused(tmp_path: Path) -> None:
    numbers = IMAGES.astype(np.float32)
    normalised = numbers / 64 - 2
    for data, test in ((numbers * 0.9, numbers / 300), (normalised, IMAGES), (IMAGES, normalised)):
        with pytest.raises(UserError, match=r"of the test part .* give both in the same units"):
            write(tmp_path, data=(data, LABELS), test=(test, LABELS))
    write(tmp_path, data=(normalised, LABELS), test=(normalised[:6] / 3, LABELS[:6]))
    masked = np.ma.masked_greater(numbers, 200)
    with pytest.raises(UserError, match="masked in places"):
        write(tmp_path, data=(masked, LABELS))


def test_the_same_data_are_the_same_set(tmp_path: Path) -> None:
    def spec(images: Any, labels: Any = LABELS) -> str:
        return write_given(
            parts_of((images, labels), "data", DataConfig(), tmp_path), cut_test=True
        )

    assert spec(IMAGES) == spec(torch.from_numpy(IMAGES)) == spec(IMAGES / 255)
    other = IMAGES.copy()
    other[3, 1, 2, 0] ^= 1
    assert len({spec(IMAGES), spec(other), spec(IMAGES, LABELS[::-1])}) == 3


class Items:
    """A map-style data set."""

    def __init__(self, make: Callable[[int], Any], classes: list[str] | None = None) -> None:
        self.make = make
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Any:
        if index >= len(IMAGES):
            raise IndexError
        return self.make(index)


def picture(index: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(IMAGES[index].transpose(1, 2, 0)))


def png(index: int) -> bytes:
    buffer = io.BytesIO()
    picture(index).save(buffer, "PNG")
    return buffer.getvalue()


ITEMS: dict[str, Callable[[int], Any]] = {
    "PIL": lambda i: (picture(i), int(LABELS[i])),
    "tensors": lambda i: (torch.from_numpy(IMAGES[i]).float() / 255, torch.tensor(LABELS[i])),
    "dict": lambda i: {"label": LABELS[i], "image": IMAGES[i], "id": i},
    "more than two": lambda i: (IMAGES[i], LABELS[i], "file"),
    "bytes": lambda i: {"Image": {"bytes": png(i), "path": None}, "fine_label": LABELS[i]},
    "names": lambda i: (picture(i), "abc"[LABELS[i]]),
}


@pytest.mark.parametrize("form", ITEMS)
def test_items_of_a_data_set(form: str, tmp_path: Path) -> None:
    dataset = write(tmp_path, data=Items(ITEMS[form], ["a", "b", "c"]))
    assert np.array_equal(pixels(dataset), IMAGES)
    assert dataset.train.labels.tolist() == LABELS.tolist()
    assert dataset.classes == ("a", "b", "c")


def test_a_subset_has_its_set_s_classes(tmp_path: Path) -> None:
    whole: Any = Items(ITEMS["PIL"], ["a", "b", "c"])
    dataset = write(tmp_path, data=torch.utils.data.Subset(whole, [0, 2, 4]))
    assert dataset.classes == ("a", "b", "c")
    assert np.array_equal(pixels(dataset), IMAGES[[0, 2, 4]])


def test_grey_and_coloured_items_become_colour(tmp_path: Path) -> None:
    mixed = Items(lambda i: (picture(i).convert("L") if i % 2 else picture(i), int(LABELS[i])))
    assert write(tmp_path, data=mixed).shape == (3, 5, 4)


def test_items_of_several_sizes_want_one(tmp_path: Path) -> None:
    sizes = Items(lambda i: (picture(i).resize((4 + i % 2, 5)), int(LABELS[i])))
    with pytest.raises(UserError, match=r"images of 2 sizes.*give resize=N"):
        write(tmp_path, data=sizes)
    assert write(tmp_path, data=sizes, config=DataConfig(resize=6)).shape == (3, 6, 6)


def test_a_random_data_set_is_found_out(tmp_path: Path) -> None:
    draws = {
        "torch": lambda: float(torch.rand(())),
        "NumPy": lambda: float(np.random.rand()),
        "Python": random.random,
    }
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    for draw in draws.values():
        noisy = Items(lambda i, d=draw: (IMAGES[i] if d() < 0.5 else IMAGES[i - 1], int(LABELS[i])))  # type: ignore[misc]
        assert is_random(noisy)
    assert not is_random(Items(ITEMS["tensors"]))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]
    with generators(3):
        first = random.random(), float(torch.rand(()))
    with generators(3):
        assert (random.random(), float(torch.rand(()))) == first


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (Items(lambda i: IMAGES[i]), r"item 0 is a ndarray: expected \(image, label\)"),
        (
            Items(lambda i: {"picture": IMAGES[i], "mark": 1}),
            "item 0 has no label: it holds picture",
        ),
        (torch.utils.data.DataLoader(Items(ITEMS["PIL"])), "give its `.dataset`"),  # type: ignore[arg-type]
        (object(), "data is a object: expected a specification"),
        ({"eval": 1}, "expected 'train'"),
    ],
)
def test_what_is_no_data_set_is_refused(data: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        write(tmp_path, data=data)


def frame(cells: list[Any]) -> pd.DataFrame:
    made = pd.DataFrame({"image": pd.Series(cells, dtype=object), "label": LABELS})
    made.attrs["metrics"] = object()  # as toPandas() of Spark Connect leaves there: no JSON
    return made


def test_tables(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    paths = [str(tmp_path / f"{index}.png") for index in range(12)]
    tables = [
        frame([png(i) for i in range(12)]),
        frame(paths),
        frame([picture(i) for i in range(12)]),
        frame(list(IMAGES)),
        frame(paths).rename(columns={"image": "path"}),
        pa.table({"image": [png(i) for i in range(12)], "label": LABELS}),
    ]
    for number, table in enumerate(tables):
        folder = tmp_path / str(number)
        folder.mkdir()
        dataset = write(folder, data=table)
        rows = {each.tobytes(): int(label) for each, label in zip(IMAGES, LABELS, strict=True)}
        found = {
            image.tobytes(): int(label)
            for image, label in zip(pixels(dataset), dataset.train.labels, strict=True)
        }
        assert found == rows
        assert dataset.classes == ("0", "1", "2")
    with pytest.raises(UserError, match=r"nothing.png: cannot be read"):
        write(tmp_path, data=frame([*paths[:11], "nothing.png"]))


@pytest.mark.parametrize("nothing", [None, float("nan"), ""])
def test_rows_of_a_table_without_a_label_are_refused_or_counted(
    tmp_path: Path, nothing: object
) -> None:
    table = frame([png(i) for i in range(12)])
    table["label"] = ["a", "b", nothing, "a", "b", "c"] * 2
    with pytest.raises(UserError, match=r"data: 2 rows have no label .*--on-error skip"):
        write(tmp_path, data=table)
    (tmp_path / "again").mkdir()
    dataset = write(tmp_path / "again", data=table, on_error="skip")
    assert (len(dataset.train), dataset.skipped, dataset.classes) == (10, 2, ("a", "b", "c"))
    assert dataset.bad == ("data: rows without a label (column 'label'): 2",)


def test_a_specification_is_joined_with_arrays(tmp_path: Path) -> None:
    digits = np.zeros((2, 8, 8), np.uint8)
    dataset = write(tmp_path, data="digits", test=(digits, [3, 4]))
    assert (len(dataset.train), len(dataset.test)) == (1438, 2)
    assert dataset.test.labels.tolist() == [3, 4]


class Features(dict[str, Any]):
    """As Hugging Face has them."""


class ClassLabel:
    names = ("a", "b", "c")


def test_a_data_set_of_hugging_face_s_form(tmp_path: Path) -> None:
    made = Items(lambda i: {"image": picture(i), "label": int(LABELS[i])})
    made.features = Features(label=ClassLabel())  # type: ignore[attr-defined]
    dataset = write(tmp_path, data={"train": made, "validation": made, "other": made})
    assert (len(dataset.train), len(dataset.validation)) == (12, 12)
    assert dataset.classes == ("a", "b", "c")


def test_data_sets_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"])
    )
    rows = {"image": [picture(i) for i in range(12)], "label": LABELS.tolist()}
    train = datasets.Dataset.from_dict(rows, features=features)
    test = train.select(range(3))
    for data in (train, datasets.DatasetDict(train=train, test=test)):
        dataset = write(tmp_path, data=data)
        assert dataset.classes == ("a", "b", "c")
        assert np.array_equal(pixels(dataset), IMAGES)
        assert len(dataset.test) == (0 if data is train else 3)


def test_a_name_of_hugging_face_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")

    def absent(_: str) -> Any:
        raise ConnectionError("no network here\nat all")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    with pytest.raises(UserError, match=r"data hf:nobody/nothing: cannot be loaded \(no network"):
        write(tmp_path, data="hf:nobody/nothing")
    made = datasets.Dataset.from_dict({"image": [IMAGES[0].tolist()] * 4, "label": [0, 1, 0, 1]})
    monkeypatch.setattr(datasets, "load_dataset", lambda _: datasets.DatasetDict(train=made))
    assert len(write(tmp_path, data="hf:somebody/something").train) == 4
    resolved = resolve(DataConfig(data="hf:somebody/something", resize=6))
    opened = open_data(resolved)
    assert (len(opened.train), len(opened.test), opened.shape) == (2, 2, (3, 6, 6))
    with pytest.raises(UserError, match="`sixfold prepare` takes data in files"):
        prepare("hf:somebody/something", tmp_path / "shards")
