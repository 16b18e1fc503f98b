import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.data import open_data, prepare, resolve
from sixfold.data.config import DataConfig
from sixfold.data.manifest import NAME, load_manifest


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    prepare("synthetic:30x1x6x6", tmp_path / "shards")
    return tmp_path / "shards"


def attempt(shards: Path) -> None:
    open_data(resolve(DataConfig(data=f"shards:{shards}")))


def test_what_is_written_is_read(shards: Path) -> None:
    manifest = load_manifest(shards)
    assert (manifest.count("train"), manifest.count("test")) == (30, 10)
    assert manifest.shape == (1, 6, 6)
    assert manifest.source["spec"] == "synthetic:30x1x6x6"
    attempt(shards)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(format="other"), "not a manifest of tensor shards"),
        (lambda m: m.update(version=5), "this Sixfold reads versions 1 to 4"),
        (lambda m: m.update(version=None), "this Sixfold reads versions 1 to 4"),
        (lambda m: m.update(version=2, kind="other"), "kind other: expected classes"),
        (lambda m: m.update(name=5), "name is not a string"),
        (lambda m: m.update(classes=[]), "classes are not"),
        (lambda m: m.update(classes=["a", "a"]), "classes are not"),
        (lambda m: m.update(classes=[1]), "classes are not"),
        (lambda m: m.update(shape=[1, 6]), "is not that of an image"),
        (lambda m: m.update(shape=[1, 6, -6]), "is not that of an image"),
        (lambda m: m.update(shape=[1, 6, True]), "is not that of an image"),
        (lambda m: m.update(shape=[60000, 60000, 60000]), "is not that of an image"),
        (lambda m: m.update(dtype="float64"), "expected uint8"),
        (lambda m: m.update(parts=[]), "parts are not two lists"),
        (lambda m: m["parts"].pop("test"), "parts are not two lists"),
        (lambda m: m.update(bad=[["a"]]), "bad is not a list"),
        (lambda m: m.update(source=3), "source is not an object"),
        (lambda m: m["parts"]["train"].append(3), "is not a file's entry"),
        (lambda m: m["parts"]["train"].append(m["parts"]["test"][0]), "listed twice"),
        (lambda m: m["parts"]["train"][0].update(file="../../etc/passwd"), "not a plain name"),
        (lambda m: m["parts"]["train"][0].update(file="/etc/x.arrow"), "not a plain name"),
        (lambda m: m["parts"]["train"][0].update(file="none.arrow"), "no such file, though"),
        (lambda m: m["parts"]["train"][0].update(count=10**12), "cannot hold"),
        (lambda m: m["parts"]["train"][0].update(count=0), "not positive integers"),
        (lambda m: m["parts"]["train"][0].update(count=29), "30 images, but the manifest says 29"),
        (lambda m: m["parts"]["train"][0].update(bytes=5), "but the manifest says 5"),
        (lambda m: m["parts"]["train"][0].update(sha256="0" * 64), "wrong checksum"),
        (lambda m: m["parts"]["train"][0].update(sha256="0"), "not 64 hexadecimal digits"),
        (lambda m: m.update(classes=m["classes"][:5]), "labels from 0 to 9: expected 0 to 4"),
        (lambda m: m.update(shape=[1, 6, 5]), "columns other than those of images of 1x6x5"),
        (lambda m: m.update(shape=[1, 4, 9]), "columns other than those of images of 1x4x9"),
    ],
)
def test_a_forged_manifest_is_refused(shards: Path, change: Change, reason: str) -> None:
    value = json.loads((shards / NAME).read_bytes())
    change(value)
    (shards / NAME).write_text(json.dumps(value))
    with pytest.raises(UserError, match=reason) as error:
        attempt(shards)
    assert all("\n" not in problem for problem in error.value.problems)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"format": 1e999}', "\x00"]
)
def test_what_is_no_manifest_is_refused(shards: Path, text: str) -> None:
    (shards / NAME).write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        attempt(shards)


def test_all_problems_come_at_once(shards: Path) -> None:
    (shards / "train-00000.arrow").unlink()
    (shards / "test-00000.arrow").write_bytes(b"short")
    with pytest.raises(UserError) as error:
        attempt(shards)
    assert len(error.value.problems) == 2


def test_a_missing_folder_or_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such"):
        attempt(tmp_path / "none")
    with pytest.raises(UserError, match=r"no manifest\.json in it"):
        load_manifest(tmp_path)
    with pytest.raises(UserError, match=r"no manifest\.json in it"):
        attempt(tmp_path)
