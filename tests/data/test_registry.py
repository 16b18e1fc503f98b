import dataclasses
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sixfold.core.errors import UserError
from sixfold.data import DataSet, open_data, prepare, resolve
from sixfold.data.config import DataConfig

FolderMaker = Callable[..., Path]


def refuse(_function: Any, _items: Any, _on_done: Any) -> Any:
    raise AssertionError("nothing was to be prepared")


def test_files_are_prepared_once(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 6, "dog": 5})
    config = DataConfig(data=f"folder:{source}", validation=0.3, augment="flip")
    resolved = resolve(config, cache=tmp_path / "cache")
    assert resolved.data.startswith(f"shards:{tmp_path}/cache/data/folder-")
    assert (resolved.validation, resolved.augment) == (0.3, "flip")
    assert resolve(config, cache=tmp_path / "cache", pool=refuse) == resolved
    dataset = open_data(resolved)
    assert dataset.name == "folder:set"
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 11


def test_a_changed_source_is_prepared_again(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 6, "dog": 5})
    config = DataConfig(data=f"folder:{source}")
    first = resolve(config, cache=tmp_path / "cache")
    (source / "cat" / "0000.png").unlink()
    second = resolve(config, cache=tmp_path / "cache")
    resized = resolve(DataConfig(data=f"folder:{source}", resize=4), cache=tmp_path / "cache")
    assert len({first.data, second.data, resized.data}) == 3
    assert resized.resize is None
    assert open_data(resized).shape == (3, 4, 4)


def test_images_of_the_size_asked_for_are_not_prepared_twice(
    tmp_path: Path, image_folder: FolderMaker
) -> None:
    source = image_folder({"cat": 6, "dog": 5}, size=(6, 6))
    asked = DataConfig(data=f"folder:{source}")
    first = resolve(asked, cache=tmp_path / "cache")
    _, rows, columns = open_data(first).shape
    assert rows == columns
    again = dataclasses.replace(asked, resize=rows)
    assert resolve(again, cache=tmp_path / "cache", pool=refuse) == first


def test_a_damaged_cache_is_made_anew(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 6, "dog": 5})
    config = DataConfig(data=f"folder:{source}")
    resolved = resolve(config, cache=tmp_path / "cache")
    shard = Path(resolved.data.removeprefix("shards:")) / "train-00000.arrow"
    whole = shard.read_bytes()
    for damaged in (whole[:-5], b"", whole[:99] + b"\x01" + whole[100:]):
        shard.write_bytes(damaged)
        assert resolve(config, cache=tmp_path / "cache") == resolved
        assert shard.read_bytes() == whole


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, image_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "elsewhere"))
    resolved = resolve(DataConfig(data=f"folder:{image_folder({'a': 2, 'b': 2})}"))
    assert str(tmp_path / "elsewhere") in resolved.data


def test_a_cache_that_cannot_be_written_is_told_with_its_setting(image_folder: FolderMaker) -> None:
    source = image_folder({"cat": 3, "dog": 3})
    with pytest.raises(UserError, match=r"SIXFOLD_CACHE /proc/none/data: cannot be written \("):
        resolve(DataConfig(data=f"folder:{source}"), cache=Path("/proc/none"))


def test_skipped_images_of_the_cache_are_remembered(
    tmp_path: Path, image_folder: FolderMaker
) -> None:
    source = image_folder({"cat": 6, "dog": 5})
    (source / "cat" / "0003.png").write_bytes(b"")
    skip = DataConfig(data=f"folder:{source}", on_error="skip")
    resolved = resolve(skip, cache=tmp_path / "cache")
    assert open_data(resolved).bad == ("cat/0003.png: zero bytes",)
    with pytest.raises(UserError, match="1 image cannot be read"):
        resolve(DataConfig(data=f"folder:{source}"), cache=tmp_path / "cache")
    assert resolve(skip, cache=tmp_path / "cache", pool=refuse) == resolved


def test_shards_are_used_where_they_are(tmp_path: Path) -> None:
    prepare("synthetic:40x3x8x8", tmp_path / "shards")
    spec = f"shards:{tmp_path / 'shards'}"
    cache = tmp_path / "cache"
    assert resolve(DataConfig(data=spec), cache=cache) == DataConfig(data=spec)
    assert resolve(DataConfig(data=spec, resize=8), cache=cache) == DataConfig(data=spec)
    assert not cache.exists()
    resized = resolve(DataConfig(data=spec, resize=5), cache=cache)
    assert open_data(resized).shape == (3, 5, 5)


def test_validation_is_cut_from_training_alone(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"train/a": 20, "train/b": 10, "test/a": 5, "test/b": 5})
    resolved = resolve(DataConfig(data=f"folder:{source}"), cache=tmp_path)
    plain = open_data(resolved)
    cut = open_data(DataConfig(data=resolved.data, validation=0.2))
    assert len(plain.validation) == 0
    assert np.bincount(cut.validation.labels).tolist() == [4, 2]
    names = [set(part.names(np.arange(len(part)))) for part in (cut.train, cut.validation)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == set(plain.train.names(np.arange(30)))
    everything = np.arange(10)
    assert (cut.test.images(everything) == plain.test.images(everything)).all()


def test_nothing_leaks_into_the_statistics(tmp_path: Path, image_folder: FolderMaker) -> None:
    counts = {"train/a": 20, "train/b": 10, "test/a": 5, "test/b": 5}
    source = image_folder(counts)
    resolved = resolve(DataConfig(data=f"folder:{source}", validation=0.3), cache=tmp_path)
    dataset = open_data(resolved)
    pixels = dataset.train.images(np.arange(len(dataset.train))) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 2, 3)), rtol=1e-9)
    # Whatever is put in the place of the other images, mean and deviation keep their bits.
    others = [
        name
        for part in (dataset.validation, dataset.test)
        for name in part.names(np.arange(len(part)))
    ]
    black = image_folder({"x": 1}, mode="L", name="black") / "x/0000.png"
    for name in others:
        (source / name).write_bytes(black.read_bytes())
    changed = open_data(resolve(resolved_config(source), cache=tmp_path))
    assert (changed.mean == dataset.mean).all()
    assert (changed.std == dataset.std).all()


def resolved_config(source: Path) -> DataConfig:
    return DataConfig(data=f"folder:{source}", validation=0.3)


def test_a_set_is_its_archive(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    with tarfile.open(tmp_path / "pack.tar.gz", "w:gz") as archive:
        archive.add(source, "set")
    (tmp_path / "alone").mkdir()
    (tmp_path / "pack.tar.gz").rename(tmp_path / "alone" / "pack.tar.gz")
    direct = open_data(resolve(DataConfig(data=f"folder:{source}"), cache=tmp_path / "cache"))
    for path in (tmp_path / "alone", tmp_path / "alone" / "pack.tar.gz"):
        packed = open_data(resolve(DataConfig(data=f"folder:{path}"), cache=tmp_path / "cache"))
        assert (packed.train.images(np.arange(8)) == direct.train.images(np.arange(8))).all()
        assert packed.classes == ("a", "b")


@pytest.mark.parametrize("validation", [-0.1, 0.51, 1.0, float("nan")])
def test_wrong_parts_are_refused(validation: float) -> None:
    with pytest.raises(UserError, match="--validation"):
        resolve(DataConfig(validation=validation))


def test_a_part_that_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none can be set aside"):
        open_data(DataConfig(data="synthetic:5x1x4x4", validation=0.5))


def test_fewer_images_are_trained_on_and_all_else_stays() -> None:
    whole = open_data(DataConfig(data="digits", validation=0.2))
    few = open_data(DataConfig(data="digits", validation=0.2, max_images=300))
    assert len(few.train) == 300
    assert np.bincount(few.train.labels).min() >= 25
    for name in ("validation", "test"):
        assert (getattr(few, name).labels == getattr(whole, name).labels).all()
    own = few.train.images(np.arange(300)) / 255
    np.testing.assert_allclose(few.mean, own.mean((0, 2, 3)))
    all_of_it = open_data(DataConfig(data="digits", max_images=len(open_data(DataConfig()).train)))
    assert (all_of_it.train.labels == open_data(DataConfig()).train.labels).all()
    with pytest.raises(UserError, match=r"--max-images 5000: there are only \d+ to train on"):
        open_data(DataConfig(data="digits", max_images=5000))
    with pytest.raises(UserError, match="--max-images 0"):
        resolve(DataConfig(max_images=0))


def test_all_problems_come_at_once() -> None:
    config = DataConfig(
        data="folder:/no/such", validation=2.0, augment="spin", resize=-1, on_error="cry"
    )
    found = config.problems()
    assert len(found) == 5
    with pytest.raises(UserError) as error:
        resolve(config)
    assert list(error.value.problems) == found
    assert DataConfig().problems() == []


def test_a_rank_opens_only_what_was_resolved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be resolved first"):
        open_data(DataConfig(data=f"folder:{tmp_path}"))


def test_a_test_part_is_set_aside_where_there_is_none(
    tmp_path: Path, image_folder: FolderMaker
) -> None:
    flat = image_folder({"train/a": 20, "train/b": 10, "test": 7}, name="flat")
    data = f"folder:{flat}"
    empty = opened(tmp_path, data=data)
    assert (len(empty.train), len(empty.test), empty.own_test) == (30, 0, False)
    split = opened(tmp_path, data=data, test_split=0.2, validation=0.25)
    assert np.bincount(split.test.labels).tolist() == [4, 2]
    assert np.bincount(split.validation.labels).tolist() == [4, 2]
    parts = (split.train, split.validation, split.test)
    names = [name for part in parts for name in part.names(np.arange(len(part)))]
    assert sorted(names) == sorted(empty.train.names(np.arange(30)))
    for part in parts:
        assert (part.images(np.arange(len(part))).sum((2, 3)).sum(0) == part.sums().total).all()
        for name, image in zip(
            part.names(np.arange(len(part))), part.images(np.arange(len(part))), strict=True
        ):
            assert (image == np.asarray(Image.open(flat / name)).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("data", ["digits", "folder"])
def test_a_part_that_was_cut_can_be_cut_otherwise(
    tmp_path: Path, image_folder: FolderMaker, data: str
) -> None:
    whole = image_folder({"a": 20, "b": 10}, name="whole") if data == "folder" else None
    spec = f"folder:{whole}" if whole else "digits"
    usual = opened(tmp_path, data=spec)
    half = opened(tmp_path, data=spec, test_split=0.5)
    count = len(usual.train) + len(usual.test)
    assert abs(len(half.test) - count / 2) <= 5
    parts = (half.train, half.test)
    names = [name for part in parts for name in part.names(np.arange(len(part)))]
    assert len(set(names)) == count


def test_a_test_part_of_its_own_is_not_cut(tmp_path: Path, image_folder: FolderMaker) -> None:
    source = image_folder({f"{part}/{name}": 5 for part in ("train", "test") for name in "ab"})
    with pytest.raises(UserError, match=r"--test-split 0.2: the set has a test part of its own"):
        opened(tmp_path, data=f"folder:{source}", test_split=0.2)
    with pytest.raises(UserError, match=r"--test-split 0.7: must be at least 0 and at most 0.5"):
        resolve(DataConfig(data="digits", test_split=0.7))


def opened(tmp_path: Path, **settings: Any) -> DataSet:
    return open_data(resolve(DataConfig(**settings), cache=tmp_path / "cache"))
