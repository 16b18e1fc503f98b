import hashlib
import json
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.data import shard_files
from sixfold.data.dataset import Part
from sixfold.data.manifest import NAME, Manifest, ShardEntry
from sixfold.data.shard_files import ShardStore, open_shard


def write_set(
    folder: Path, counts: list[int], groups: bool = False
) -> tuple[Manifest, NDArray[np.uint8]]:
    """Files of so many images each, and all their pixels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (sum(counts), 2, 4, 3), np.uint8)
    entries, start = [], 0
    for number, count in enumerate(counts):
        rows = range(start, start + count)
        data = shard_files.encode(
            images[start : start + count],
            [row % 3 for row in rows],
            [f"image {row}" for row in rows],
            [f"slide {row // 4}" if groups else "" for row in rows],
        )
        name = f"train-{number:05d}.arrow"
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(ShardEntry(file=name, count=count, bytes=len(data), sha256=digest))
        start += count
    manifest = Manifest(
        name="x",
        classes=("a", "b", "c"),
        shape=(2, 4, 3),
        parts={"train": tuple(entries), "test": ()},
    )
    manifest.save(folder)
    return manifest, images


def test_records_are_found_across_files(tmp_path: Path) -> None:
    manifest, images = write_set(tmp_path, [5, 1, 7])
    store = ShardStore(tmp_path, manifest, "train")
    order = np.random.default_rng(1).integers(0, 13, 50)
    assert (store.images(order) == images[order]).all()
    assert store.names(order) == [f"image {index}" for index in order]
    assert store.labels.tolist() == [index % 3 for index in range(13)]
    assert store.groups is None


def test_groups_are_numbered(tmp_path: Path) -> None:
    manifest, _ = write_set(tmp_path, [5, 7], groups=True)
    groups = ShardStore(tmp_path, manifest, "train").groups
    assert groups is not None
    assert groups.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


@given(st.sets(st.integers(0, 12), min_size=1))
def test_sums_of_any_choice_are_exact(
    tmp_path_factory: pytest.TempPathFactory, chosen: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    manifest, images = write_set(folder, [5, 1, 7])
    part = Part(ShardStore(folder, manifest, "train"), np.array(sorted(chosen)))
    values = images[sorted(chosen)].astype(object)
    sums = part.sums()
    assert list(sums.total) == values.sum((0, 2, 3)).tolist()
    assert list(sums.squares) == (values**2).sum((0, 2, 3)).tolist()
    pixels = images[sorted(chosen)] / 255
    np.testing.assert_allclose(sums.mean(), pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(sums.std(), pixels.std((0, 2, 3)), rtol=1e-9)


def test_an_empty_part_is_a_part(tmp_path: Path) -> None:
    manifest, _ = write_set(tmp_path, [3])
    store = ShardStore(tmp_path, manifest, "test")
    assert len(store.labels) == 0
    assert store.images(np.empty(0, np.int64)).shape == (0, 2, 4, 3)
    assert store.groups is None
    assert store.sums(np.empty(0, np.int64)).total == (0, 0)


def test_reading_does_not_load_the_set_nor_keep_files_open(tmp_path: Path) -> None:
    manifest, _ = write_set(tmp_path, [2] * 40)
    before = len(list(Path("/proc/self/fd").iterdir()))
    store = ShardStore(tmp_path, manifest, "train")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not store._files[0].pixels.flags.owndata
    assert not store._files[0].pixels.flags.writeable


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    manifest, images = write_set(tmp_path, [1] * 120)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        store = ShardStore(tmp_path, manifest, "train")
        assert (store.images(np.arange(120)) == images).all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_files_bytes_follow_from_its_records(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in "ab":
        write_set(tmp_path / name, [5])
    first = (tmp_path / "a" / "train-00000.arrow").read_bytes()
    assert first == (tmp_path / "b" / "train-00000.arrow").read_bytes()


def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    # Larger sets are not hashed when they are opened, so this must not crash the process.
    write_set(tmp_path, [4])
    path = tmp_path / "train-00000.arrow"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        hurt = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            hurt[place] = rng.integers(0, 256)
        path.write_bytes(bytes(hurt))
        try:
            file = open_shard(path, (2, 4, 3))
        except UserError:
            refused += 1
            continue
        assert file.pixels.shape[1:] == (2, 4, 3)
        file.names.to_pylist()
        file.pixels.sum()
    assert refused > 20


@pytest.mark.parametrize("kept", [0, 5, 100, 700, -200, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    write_set(tmp_path, [4])
    path = tmp_path / "train-00000.arrow"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="damaged"):
        open_shard(path, (2, 4, 3))


def test_arrow_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.arrow"
    table = pa.table({"image": [[1, 2]]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="columns other than"):
        open_shard(path, (1, 1, 2))


def test_names_that_are_no_text_are_escaped() -> None:
    data = shard_files.encode(np.zeros((1, 1, 2, 2), np.uint8), [0], ["a\udcff.png"], [""])
    batch = pa.ipc.open_file(pa.BufferReader(data)).get_batch(0)
    assert batch.column("name").to_pylist() == ["a\\udcff.png"]


def test_the_manifest_lists_what_was_written(tmp_path: Path) -> None:
    manifest, _ = write_set(tmp_path, [5, 1])
    value = json.loads((tmp_path / NAME).read_bytes())
    assert [item["count"] for item in value["parts"]["train"]] == [5, 1]
    written = sum(entry.bytes for entry in manifest.entries)
    assert written == sum(file.stat().st_size for file in tmp_path.glob("*.arrow"))
