import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sixfold.core.errors import UserError
from sixfold.core.locks import locked
from sixfold.data import DataSet, open_data, prepare
from sixfold.data.config import DataConfig

FolderMaker = Callable[..., Path]
PoolMaker = Callable[[int], Any]
MANY = "synthetic:3100x1x3x3"
"""Four chunks for training, one for testing."""


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def opened(folder: Path) -> DataSet:
    return open_data(DataConfig(data=f"shards:{folder}"))


@pytest.mark.full
def test_the_bytes_do_not_depend_on_the_workers(
    tmp_path: Path, image_folder: FolderMaker, pool_of: PoolMaker
) -> None:
    source = image_folder({"train/cat": 7, "train/dog": 6, "test/cat": 2, "test/dog": 2})
    for spec, counts in ((MANY, (None, 1, 2, 3)), (f"folder:{source}", (None, 2))):
        results = []
        for workers in counts:
            folder = tmp_path / f"{spec[:6]}{workers}"
            prepare(spec, folder, pool=pool_of(workers) if workers else None)
            results.append(contents(folder))
        assert all(result == results[0] for result in results)
        assert results[0].keys() >= {"manifest.json", "train-00000.arrow", "test-00000.arrow"}


def test_records_keep_their_order_across_chunks(tmp_path: Path) -> None:
    manifest = prepare(MANY, tmp_path / "shards")
    assert [entry.count for entry in manifest.parts["train"]] == [1024, 1024, 1024, 28]
    found, made = opened(tmp_path / "shards"), open_data(DataConfig(data=MANY))
    order = np.random.default_rng(0).integers(0, 3100, 200)
    assert (found.train.images(order) == made.train.images(order)).all()
    assert found.train.names(order) == made.train.names(order)
    assert (found.train.labels == made.train.labels).all()
    np.testing.assert_array_equal(found.mean, made.mean)
    np.testing.assert_array_equal(found.std, made.std)


def test_progress_counts_images(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(MANY, tmp_path / "shards", progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 3720)
    assert told[-1] == (3720, 3720)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def killed_after(chunks: int) -> Any:
    """A pool whose launcher dies once it has seen so many chunks finished."""

    def pool(
        function: Callable[[Any], Any], items: Sequence[Any], on_done: Callable[[int, Any], None]
    ) -> list[Any]:
        for number, item in enumerate(items):
            if number == chunks:
                os.kill(os.getpid(), signal.SIGKILL)
            function(item)
        return []

    return pool


def prepare_and_die(source: str, folder: Path, chunks: int) -> None:
    prepare(source, folder, pool=killed_after(chunks))


def test_after_a_kill_only_the_rest_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    child = multiprocessing.get_context("spawn").Process(
        target=prepare_and_die, args=(MANY, folder, 3)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    with pytest.raises(UserError, match="was not finished"):
        opened(folder)
    done = {file.name: file.stat().st_ino for file in folder.glob("*.arrow")}
    assert sorted(done) == [f"train-{number:05}.arrow" for number in range(3)]
    # One finished file is hurt, and another was being written when its worker died.
    hurt = folder / "train-00001.arrow"
    hurt.write_bytes(hurt.read_bytes()[:-1])
    (folder / ".train-00003.arrow.4711.tmp").write_bytes(b"half")

    prepare(MANY, folder)
    prepare(MANY, tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")
    for name in ("train-00000.arrow", "train-00002.arrow"):
        assert (folder / name).stat().st_ino == done[name]
    assert hurt.stat().st_ino != done[hurt.name]


def test_a_finished_folder_is_left_alone(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 5, "dog": 5})
    folder = tmp_path / "shards"
    first = prepare(f"folder:{source}", folder)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert prepare(f"folder:{source}", folder) == first
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    for change in ({"resize": 4}, {"source": "digits"}):
        with pytest.raises(UserError, match="holds shards of another source"):
            prepare(**{"source": f"folder:{source}", "destination": folder, **change})  # type: ignore[arg-type]
    assert {file.name for file in folder.iterdir()} == set(before)
    shard = folder / "train-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[-300] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(UserError, match="wrong checksum"):
        prepare(f"folder:{source}", folder)


def test_an_unfinished_folder_of_other_settings_is_begun_anew(
    tmp_path: Path, image_folder: FolderMaker
) -> None:
    source = image_folder({"cat": 4, "dog": 4})
    (source / "cat" / "0001.png").write_bytes(b"")
    folder = tmp_path / "shards"
    with pytest.raises(UserError, match="zero bytes"):
        prepare(f"folder:{source}", folder)
    (source / "cat" / "0001.png").unlink()
    manifest = prepare(f"folder:{source}", folder)
    assert manifest.count("train") + manifest.count("test") == 7
    assert {file.name for file in folder.iterdir()} == {
        "manifest.json", "train-00000.arrow", "test-00000.arrow"
    }  # fmt: skip


def test_other_peoples_files_are_not_touched(tmp_path: Path) -> None:
    for name in ("mine.arrow", "train-00000.arrow", "notes.txt"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(b"mine")
        with pytest.raises(UserError, match=f"holds other files \\({name}\\)"):
            prepare("synthetic:20x1x4x4", folder)
        assert contents(folder) == {name: b"mine"}
    with pytest.raises(UserError, match="is a file"):
        prepare("digits", tmp_path / "notes" / "notes.txt")
    with pytest.raises(UserError, match="give a folder"):
        prepare("digits", "s3://bucket/shards")


def test_two_preparations_do_not_share_a_folder(tmp_path: Path) -> None:
    busy = pytest.raises(UserError, match="another process is preparing shards there")
    with locked(tmp_path / "shards" / ".prepare", wait=False), busy:
        prepare("synthetic:20x1x4x4", tmp_path / "shards")
    prepare("synthetic:20x1x4x4", tmp_path / "shards")


def test_an_empty_folder_may_be_given(tmp_path: Path) -> None:
    assert prepare("synthetic:20x1x4x4", tmp_path).count("train") == 20


def test_mixed_sizes_are_listed(tmp_path: Path, image_folder: FolderMaker) -> None:
    image_folder({"cat": 5, "dog": 5}, size=(6, 5))
    source = image_folder({"cat/more": 3}, size=(9, 7))
    with pytest.raises(UserError) as error:
        prepare(f"folder:{source}", tmp_path / "shards")
    (problem,) = error.value.problems
    assert "2 sizes (width x height): 10 of 5x6, 3 of 7x9" in problem
    assert "--resize" in problem
    assert prepare(f"folder:{source}", tmp_path / "shards", resize=8).shape == (3, 8, 8)


def test_a_late_odd_size_is_found_too(tmp_path: Path, image_folder: FolderMaker) -> None:
    image_folder({"cat": 90, "dog": 90}, size=(3, 3))
    source = image_folder({"dog/z": 1}, size=(4, 4))
    with pytest.raises(UserError, match="180 of 3x3, 1 of 4x4"):
        prepare(f"folder:{source}", tmp_path / "shards")


def test_bad_images_stop_or_are_skipped(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"train/cat": 8, "train/dog": 8, "test/cat": 3, "test/dog": 3})
    whole = (source / "train/cat/0002.png").read_bytes()
    (source / "train/cat/0002.png").write_bytes(whole[:60])
    (source / "train/dog/0000.png").write_bytes(b"")
    (source / "test/dog/0001.png").write_text("no image at all")
    spec, folder = f"folder:{source}", tmp_path / "shards"
    with pytest.raises(UserError) as error:
        prepare(spec, folder)
    *listed, advice = error.value.problems
    assert [line.partition(":")[0] for line in listed] == [
        "train/cat/0002.png", "train/dog/0000.png", "test/dog/0001.png"
    ]  # fmt: skip
    assert advice.startswith("3 images cannot be read")
    assert "--on-error skip" in advice

    made = {file.name: file.stat().st_ino for file in folder.glob("*.arrow")}
    manifest = prepare(spec, folder, on_bad="skip")
    assert {file.name: file.stat().st_ino for file in folder.glob("*.arrow")} == made
    assert (manifest.count("train"), manifest.count("test")) == (14, 5)
    dataset = opened(folder)
    assert dataset.bad[1] == "train/dog/0000.png: zero bytes"
    assert len(dataset.bad) == 3
    assert "train/dog/0000.png" not in dataset.train.names(np.arange(14))
    with pytest.raises(UserError, match="3 images cannot be read"):
        prepare(spec, folder)


def test_many_bad_images_are_counted(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 20, "dog": 20})
    for file in sorted(source.glob("cat/*"))[:15]:
        file.write_bytes(b"x")
    with pytest.raises(UserError) as error:
        prepare(f"folder:{source}", tmp_path / "shards")
    assert len(error.value.problems) == 11
    assert error.value.problems[-1].startswith("15 images cannot be read (the first 10")


def test_a_class_may_not_vanish_by_skipping(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 1})
    for file in source.glob("train/dog/*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"no images left in the train part .* dog"):
        prepare(f"folder:{source}", tmp_path / "shards", on_bad="skip")


def test_nothing_but_bad_images_is_told(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 3, "dog": 2})
    for file in source.glob("*/*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="holds no image that can be read"):
        prepare(f"folder:{source}", tmp_path / "shards", on_bad="skip")


@pytest.mark.parametrize("resize", [None, 4])
def test_grey_pictures_among_colour_ones_become_colour(
    tmp_path: Path, image_folder: FolderMaker, resize: int | None
) -> None:
    # Chunks are of one class each here, so whole chunks are grey.
    image_folder({"train/a": 1030, "test/a": 1}, size=(2, 3), mode="L")
    source = image_folder({"train/b": 3, "test/b": 1}, size=(2, 3))
    prepare(f"folder:{source}", tmp_path / "shards", resize=resize)
    dataset = opened(tmp_path / "shards")
    assert dataset.shape == ((3, 4, 4) if resize else (3, 2, 3))
    images = dataset.train.images(np.array([0, 1029, 1032]))
    grey = np.asarray(Image.open(source / "train/a/0000.png"))
    assert (images[:2].min(1) == images[:2].max(1)).all()
    assert (images[2].min(0) != images[2].max(0)).any()
    if resize is None:
        assert (images[0, 1] == grey).all()
    pixels = dataset.train.images(np.arange(1033)) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-12)


def test_a_grey_folder_stays_grey(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"a": 4, "b": 4}, mode="L")
    assert prepare(f"folder:{source}", tmp_path / "shards").shape == (1, 6, 5)


def test_shards_can_be_made_of_shards(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"a": 9, "b": 6}, size=(8, 8))
    prepare(f"folder:{source}", tmp_path / "large")
    prepare(f"folder:{source}", tmp_path / "direct", resize=5)
    prepare(f"shards:{tmp_path / 'large'}", tmp_path / "small", resize=5)
    for name in ("train-00000.arrow", "test-00000.arrow"):
        direct = (tmp_path / "direct" / name).read_bytes()
        assert (tmp_path / "small" / name).read_bytes() == direct


def test_temporary_copies_do_not_stay(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"a": 4, "b": 4})
    with tarfile.open(tmp_path / "set.tar.xz", "w:xz") as archive:
        archive.add(source, "set")
    prepare(f"folder:{tmp_path / 'set.tar.xz'}", tmp_path / "shards")
    names = {file.name for file in (tmp_path / "shards").iterdir()}
    assert names == {"manifest.json", "train-00000.arrow", "test-00000.arrow"}
    prepare(f"folder:{source}", tmp_path / "direct")
    direct = (tmp_path / "direct" / "train-00000.arrow").read_bytes()
    assert (tmp_path / "shards" / "train-00000.arrow").read_bytes() == direct


def test_wrong_settings_come_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        prepare("folder:/no/such/folder", tmp_path, resize=0, on_bad="ignore")
    assert [problem.split()[0] for problem in error.value.problems] == [
        "--resize", "--on-error", "/no/such/folder:"
    ]  # fmt: skip
    assert not any(tmp_path.iterdir())


def test_the_manifest_says_where_it_came_from(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"a": 4, "b": 4})
    prepare(f"folder:{source}", tmp_path / "shards", resize=7)
    value = json.loads((tmp_path / "shards" / "manifest.json").read_bytes())
    assert value["source"]["spec"] == f"folder:{source}"
    assert value["source"]["split"] == "80/20, stratified by class"
    assert value["settings"] == {"resize": 7, "on_bad": "fail"}
    shutil.rmtree(source)
    assert opened(tmp_path / "shards").shape == (3, 7, 7)
