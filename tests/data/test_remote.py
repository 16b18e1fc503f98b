from pathlib import Path

import fsspec
import numpy as np
import pytest

from sixfold.core.errors import UserError
from sixfold.data import open_data, prepare, resolve
from sixfold.data.config import DataConfig


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Shards of 40 images behind a URL."""
    prepare("synthetic:40x3x6x6", tmp_path / "shards")
    memory = fsspec.filesystem("memory")
    for file in (tmp_path / "shards").iterdir():
        memory.pipe_file(f"/{tmp_path.name}/{file.name}", file.read_bytes())
    return f"memory://{tmp_path.name}"


def test_shards_behind_a_url_are_copied_once(tmp_path: Path, url: str) -> None:
    config = DataConfig(data=f"shards:{url}")
    told: list[tuple[int, int]] = []
    resolved = resolve(config, cache=tmp_path, progress=lambda *now: told.append(now))
    assert told[-1] == (50, 50)
    made = open_data(DataConfig(data="synthetic:40x3x6x6"))
    everything = np.arange(40)
    assert (open_data(resolved).train.images(everything) == made.train.images(everything)).all()
    copies = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.arrow")}
    assert resolve(config, cache=tmp_path) == resolved
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.arrow")} == copies
    small = resolve(DataConfig(data=f"shards:{url}", resize=4), cache=tmp_path)
    assert open_data(small).shape == (3, 4, 4)


def test_damage_on_the_way_is_noticed(tmp_path: Path, url: str) -> None:
    memory = fsspec.filesystem("memory")
    path = f"/{tmp_path.name}/train-00000.arrow"
    whole = memory.cat_file(path)
    for damaged, reason in ((whole[:-1] + b"x", "wrong checksum"), (whole[:-1], "manifest says")):
        memory.pipe_file(path, damaged)
        with pytest.raises(UserError, match=reason):
            resolve(DataConfig(data=f"shards:{url}"), cache=tmp_path / "cache")
    memory.pipe_file(f"/{tmp_path.name}/manifest.json", b"{")
    with pytest.raises(UserError, match="not JSON"):
        resolve(DataConfig(data=f"shards:{url}"), cache=tmp_path / "cache")
    with pytest.raises(UserError, match="no such file"):
        resolve(DataConfig(data="shards:memory://nowhere"), cache=tmp_path / "cache")


def test_folders_behind_a_url_are_read(tmp_path: Path) -> None:
    import io

    from PIL import Image

    memory = fsspec.filesystem("memory")
    for number in range(12):
        buffer = io.BytesIO()
        Image.new("L", (4, 4), number).save(buffer, "PNG")
        memory.pipe_file(f"/pets/{'cat' if number % 2 else 'dog'}/{number}.png", buffer.getvalue())
    config = DataConfig(data="folder:memory://pets")
    dataset = open_data(resolve(config, cache=tmp_path))
    assert dataset.classes == ("cat", "dog")
    for part in (dataset.train, dataset.test):
        everything = np.arange(len(part))
        for name, image in zip(part.names(everything), part.images(everything), strict=True):
            number = int(name.rpartition("/")[2].removesuffix(".png"))
            assert (image == number).all()
    memory.pipe_file("/pets/cat/1.png", b"")
    with pytest.raises(UserError, match=r"cat/1\.png: zero bytes"):
        resolve(config, cache=tmp_path)
