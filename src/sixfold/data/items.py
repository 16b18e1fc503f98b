"""Items of a map-style data set: an image and its label, in whatever form they come."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.errors import UserError
from sixfold.data.arrays import PixelReader, as_array, channels_first
from sixfold.data.formats.columns import IMAGE_NAMES, LABEL_NAMES
from sixfold.data.images import BadImageError, Pixels, decode, open_picture, resize_array

PROBED, READS = 16, 4
"""Items that are looked at, and how often, to see whether they are random: a flip of half of the
images is missed once in 10^14 times, a change of every tenth image once in 800."""


def split_item(item: Any, index: int, image: str | None, label: str | None) -> tuple[Any, Any]:
    """Image and label of an item: a pair (or more, of which the first two count), or a mapping."""
    if isinstance(item, Mapping):
        return item[_key(item, image, IMAGE_NAMES, "image", index)], item[
            _key(item, label, LABEL_NAMES, "label", index)
        ]
    if isinstance(item, Sequence) and not isinstance(item, (str, bytes)) and len(item) >= 2:
        return item[0], item[1]
    raise UserError(
        f"data: item {index} is a {type(item).__name__}: expected (image, label), or a mapping "
        "with both"
    )


def weight_of(item: Any, index: int, weight: str) -> float:
    """How much an item counts: by its key in a mapping, or its place in a tuple, such as "2"."""
    if isinstance(item, Mapping):
        found = item[_key(item, weight, (), "weight", index)]
    elif weight.isdecimal() and int(weight) < len(item):
        found = item[int(weight)]
    else:
        raise UserError(
            f"data: item {index} has {len(item)} values and no {weight}: say which is its weight "
            "by its place, such as weight_column='2' for the third"
        )
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(
            f"data: item {index} counts {found!r}: expected a finite number of at least 0"
        )
    return value


def _key(
    item: Mapping[Any, Any], given: str | None, known: Sequence[str], what: str, index: int
) -> Any:
    if given is not None and given in item:
        return given
    names = {str(key).lower(): key for key in item}
    for name in known if given is None else ():
        if name in names:
            return names[name]
    raise UserError(
        f"data: item {index} has no {what}: it holds {', '.join(map(str, item))}; say which it is "
        f"with {what}_column="
    )


def pixels_of(value: Any, reader: PixelReader, resize: int | None) -> Pixels:
    """Pixels (C, H, W) of a PIL image, encoded bytes, a path, an array, a tensor or lists.

    Raises:
        BadImageError: if it is no image.
        UserError: if its pixels are no numbers, or in other units than those before.
    """
    if hasattr(value, "getbands"):  # of PIL
        return decode(value, resize=resize)
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (str, Path)):
        try:
            value = Path(value).expanduser().read_bytes()
        except OSError as error:
            raise BadImageError(f"cannot be read ({error.strerror})", str(value)) from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decode(open_picture(bytes(value)), resize=resize)
    if value is None:
        raise BadImageError("no image (null)")
    try:
        array, is_tensor = as_array(value)
        if array.dtype == object:  # rows of arrays, as pandas has them
            array = np.array([np.array(row.tolist()) for row in array])
    except (TypeError, ValueError, AttributeError):
        raise BadImageError(f"a {type(value).__name__}, which is no image") from None
    pixels = np.ascontiguousarray(reader.read(channels_first(array, is_tensor=is_tensor)))
    return pixels if resize is None else resize_array(pixels, resize)


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """The names that a data set gives its classes, also through `Subset`; None if it has none."""
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):  # of Hugging Face
        for name in LABEL_NAMES:
            if (names := getattr(features.get(name), "names", None)) is not None:
                return tuple(map(str, names))
        return None
    seen = 0
    while dataset is not None and seen < 20:
        names = getattr(dataset, "classes", None)
        if isinstance(names, (list, tuple)) and names:
            return tuple(map(str, names))
        dataset, seen = getattr(dataset, "dataset", None), seen + 1
    return None


@contextmanager
def generators(state: int) -> Iterator[None]:
    """While open, the generators of Python, NumPy and torch follow from a number."""
    import torch

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(state)
        np.random.seed(state % 2**32)
        random.seed(state)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def is_random(dataset: Any) -> bool:
    """Whether one of the first items differs when it is read under other generators' states."""
    for index in range(min(len(dataset), PROBED)):
        reads = []
        for turn in range(READS):
            with generators(READS * index + turn):
                reads.append(_values(dataset[index]))
        if any(read != reads[0] for read in reads):
            return True
    return False


def _values(item: Any) -> list[Any]:
    """What two reads of an item can be compared by."""
    if isinstance(item, Mapping):
        return [_values(value) for value in item.values()]
    if isinstance(item, (list, tuple)):
        return [_values(value) for value in item]
    try:
        array = as_array(item)[0]
        return [str(array.dtype), array.shape, array.tobytes()]
    except (TypeError, ValueError):
        return [repr(item)]
