"""Tensor shards that stay in a store: the images of local ones, and a cache that stays small."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tests.conftest import SMALL
from tests.marks import some

import sixfold
from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.core.object_store import ObjectStore
from sixfold.data import shard_building
from sixfold.data.config import DataConfig
from sixfold.data.manifest import load_manifest
from sixfold.data.preparation import prepare
from sixfold.data.shard_streaming import PIXELS, outline_folder
from sixfold.data.splits import by_windows, file_windows

URL = "memory://sets/tiny"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache for each test, and nothing in memory."""
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shards of 100 images each, and the same in memory."""
    monkeypatch.setattr(shard_building, "MOST_CHUNK_IMAGES", 100)
    folder = tmp_path / "shards"
    prepare("digits", folder)
    store = ObjectStore(URL)
    store.upload({path.name: path for path in folder.iterdir() if path.is_file()})
    return folder


def largest(folder: Path) -> int:
    """Bytes of the largest file of a set."""
    return max(entry.bytes for entry in load_manifest(folder).entries)


def config_of(folder: Path, files: int = 4, **changes: Any) -> DataConfig:
    size = str(files * largest(folder))
    return datasets.resolve(
        DataConfig(data=f"shards:{URL}", cache_size=size, **{"shuffle_files": 2, **changes})
    )


def used_bytes() -> int:
    found = 0
    for path in (outline_folder(URL) / PIXELS).glob("*.arrow"):
        with contextlib.suppress(FileNotFoundError):  # the next ones are read meanwhile
            found += path.stat().st_size
    return found


def test_streamed_shards_hold_what_local_ones_do(shards: Path) -> None:
    config = config_of(shards)
    local = datasets.open_data(DataConfig(data=f"shards:{shards}"))
    there = datasets.open_data(config)
    assert (there.mean == local.mean).all()
    assert there.classes == local.classes
    chosen = np.random.default_rng(0).permutation(len(local.train))[:300]
    assert (there.train.images(chosen) == local.train.images(chosen)).all()
    assert (there.train.labels == local.train.labels).all()
    assert there.test.names(np.arange(5)) == local.test.names(np.arange(5))
    assert datasets.content_fingerprint(config) == datasets.content_fingerprint(
        DataConfig(data=f"shards:{shards}")
    )
    assert 0 < used_bytes() <= 4 * largest(shards)


def test_the_next_files_are_there_before_they_are_asked_for(shards: Path) -> None:
    train = datasets.open_data(config_of(shards)).train
    assert train.files is not None
    train.expect([[3, 5], [0, 1], [2, 4]])
    train.images(np.flatnonzero(train.files == 3)[:2])
    folder, until = outline_folder(URL) / PIXELS, time.monotonic() + 20
    wanted = {f"train-{number:05d}.arrow" for number in (3, 5, 0, 1)}
    while (found := {path.name for path in folder.glob("*.arrow")}) != wanted:
        assert time.monotonic() < until, found
        time.sleep(0.01)


def train(folder: Path, out: Path, **changes: Any) -> Any:
    own = {"data": f"shards:{folder}", "out": str(out), "model": "lenet300", "shuffle_files": 2}
    return sixfold.train(**SMALL | own | {"steps": 60, "quiet": True} | changes)


@pytest.mark.parametrize(("workers", "files"), some([(2, 5), (1, 4), (2, 30)], 3, rows=True))
def test_a_training_has_the_same_bits_whatever_the_cache_and_the_ranks(
    shards: Path, tmp_path: Path, workers: int, files: int
) -> None:
    local = train(shards, tmp_path / "local")
    size = str(files * largest(shards))
    there: dict[str, Any] = {"data": f"shards:{URL}", "cache_size": size, "workers": workers}
    half = train(shards, tmp_path / "there", steps=40, **there)  # in the middle of an epoch
    whole = train(shards, tmp_path / "there", resume=True, **there)
    assert half.weights_sha256 != whole.weights_sha256 == local.weights_sha256


def test_how_many_files_are_visited_at_a_time_decides_the_bits(
    shards: Path, tmp_path: Path
) -> None:
    some, more = (train(shards, tmp_path / str(k), shuffle_files=k, steps=5) for k in (2, 3))
    assert some.weights_sha256 != more.weights_sha256


def test_windows_visit_every_image_once_and_few_files_at_a_time() -> None:
    file = np.repeat(np.arange(7), 5)
    order = np.random.default_rng(0).permutation(35)
    windows = file_windows(0, 3, 7, 3)
    found = by_windows(order, file, windows)
    assert sorted(found.tolist()) == list(range(35))
    assert [sorted(set(file[found[a:b]].tolist())) for a, b in ((0, 15), (15, 30), (30, 35))] == [
        sorted(window.tolist()) for window in windows
    ]
    assert [w.tolist() for w in windows] != [w.tolist() for w in file_windows(0, 4, 7, 3)]


def test_a_cache_that_is_too_small_is_refused_with_the_arithmetic(shards: Path) -> None:
    with pytest.raises(UserError, match=r"visited in an order over the whole set.*--shuffle-files"):
        config_of(shards, shuffle_files=None)
    with pytest.raises(UserError, match="two times --shuffle-files 5 have to find room"):
        config_of(shards, shuffle_files=5)
    with pytest.raises(UserError, match="expected a size such as 500M"):
        datasets.resolve(DataConfig(data=f"shards:{URL}", cache_size="much"))
    with pytest.raises(UserError, match="only for tensor shards in a store"):
        datasets.resolve(DataConfig(data="digits", cache_size="1G"))
    with pytest.raises(UserError, match="only for --strategy sync and model_parallel"):
        sixfold.train(**SMALL | {"strategy": "hogwild", "shuffle_files": 2, "quiet": True})


def test_a_damaged_object_is_refused_where_it_is_read(shards: Path) -> None:
    config = config_of(shards)
    store = ObjectStore(URL)
    data = bytearray(store.read("train-00001.arrow") or b"")
    data[2000] ^= 1
    store.write("train-00001.arrow", bytes(data))
    train = datasets.open_data(config).train
    assert train.files is not None
    with pytest.raises(UserError, match=r"train-00001.arrow: damaged \(wrong checksum\)"):
        train.images(np.flatnonzero(train.files == 1)[:1])
