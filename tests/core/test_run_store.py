"""Runs at a URL: who may write, what is visible when, and what is left of an upload that broke."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sixfold.core import run_store
from sixfold.core.errors import RunError, UserError
from sixfold.core.object_store import DeniedError, ObjectStore, StoreError
from sixfold.core.run_store import HeldRun, RunStore, SupersededError, local_run

URL = "memory://runs/one"


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing in memory, and launchers that are found silent in no time."""
    store = fsspec.filesystem("memory").store
    store.clear()
    monkeypatch.setattr(run_store, "BEAT_S", 0.05)
    yield
    store.clear()


def copy_at(folder: Path, number: int) -> RunStore:
    """A working copy of the writer of an attempt."""
    folder.mkdir(exist_ok=True)
    copy = RunStore(URL, folder)
    copy.pull()
    copy.take(number, {})
    return copy


def put(copy: RunStore, name: str, text: str) -> None:
    path = copy.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def seen(folder: Path) -> dict[str, str]:
    """What a new reader finds."""
    copy = RunStore(URL, folder)
    copy.pull()
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.*")}


def test_what_is_published_is_what_another_host_finds(tmp_path: Path) -> None:
    copy = copy_at(tmp_path / "a", 1)
    put(copy, "config.json", "{}")
    put(copy, "checkpoints/step-1.safetensors", "one")
    put(copy, ".lock", "not for others")
    copy.publish()
    put(copy, "checkpoints/step-2.safetensors", "two")
    (copy.folder / "checkpoints/step-1.safetensors").unlink()
    copy.publish()
    assert seen(tmp_path / "b") == {"config.json": "{}", "checkpoints/step-2.safetensors": "two"}
    assert "checkpoints/step-1.safetensors" not in ObjectStore(URL).list()


def test_a_superseded_attempt_publishes_nothing_more(tmp_path: Path) -> None:
    old = copy_at(tmp_path / "a", 1)
    put(old, "config.json", "old")
    old.publish()
    new = copy_at(tmp_path / "b", 2)
    put(old, "config.json", "a zombie's")
    with pytest.raises(SupersededError, match="attempt 1 was superseded by attempt 2"):
        old.publish()
    with pytest.raises(SupersededError):
        old.take(2, {})
    put(new, "result.json", "new")
    new.publish()
    assert seen(tmp_path / "c") == {"config.json": "old", "result.json": "new"}


def test_a_zombies_late_checkpoint_does_not_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = copy_at(tmp_path / "a", 1)
    put(old, "checkpoints/step-1.safetensors", "one")
    old.publish()
    new = copy_at(tmp_path / "b", 2)
    put(new, "checkpoints/step-2.safetensors", "two")
    new.publish()
    # It has looked at the attempts just before the new one began, and writes only now.
    monkeypatch.setattr(old, "fence", lambda: None)
    put(old, "checkpoints/step-2.safetensors", "2!!")
    put(old, "checkpoints/step-3.safetensors", "three")
    old.publish()
    found = seen(tmp_path / "c")
    assert found == {"checkpoints/step-1.safetensors": "one"}  # neither newer nor overwritten


def test_half_an_upload_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copy_at(tmp_path / "a", 1)
    put(copy, "checkpoints/step-1.safetensors", "one")
    copy.publish()
    put(copy, "checkpoints/step-2.safetensors", "two")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(copy, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            copy.publish()
    assert seen(tmp_path / "b") == {"checkpoints/step-1.safetensors": "one"}
    # Nor an object that was cut short, or changed, after it was recorded.
    copy.publish()
    ObjectStore(URL).write("checkpoints/step-2.safetensors", b"tw")
    assert seen(tmp_path / "c") == {"checkpoints/step-1.safetensors": "one"}
    ObjectStore(URL).write("checkpoints/step-2.safetensors", b"TWO")
    assert seen(tmp_path / "d") == {"checkpoints/step-1.safetensors": "one"}


def test_the_result_is_the_last_to_be_seen_and_the_first_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, order = copy_at(tmp_path / "a", 1), list[str]()
    upload, delete = copy.store.upload, copy.store.delete

    def uploaded(files: dict[str, Path]) -> None:
        order.extend(files)
        upload(files)

    def deleted(names: list[str]) -> None:
        order.extend(f"-{name}" for name in names)
        delete(names)

    monkeypatch.setattr(copy.store, "upload", uploaded)
    monkeypatch.setattr(copy.store, "delete", deleted)
    for name in ("result.json", "config.json", "model.safetensors"):
        put(copy, name, name)
    copy.publish()
    assert order == ["model.safetensors", "config.json", "result.json"]
    order.clear()
    (copy.folder / "result.json").unlink()
    put(copy, "config.json", "other")
    copy.publish()
    assert order == ["-result.json", "config.json"]


def test_a_run_that_a_tool_has_copied_there_is_read_as_it_is(tmp_path: Path) -> None:
    store = ObjectStore(URL)
    for name in ("model.safetensors", "checkpoints/step-1.safetensors", "config.json"):
        store.write(name, b"x")
    assert len(seen(tmp_path / "a")) == 3
    read = local_run(URL)
    assert sorted(p.name for p in read.iterdir()) == ["config.json", "model.safetensors"]
    assert local_run(f"{URL}/model.safetensors") == read / "model.safetensors"
    with pytest.raises(UserError, match="there is no run memory://runs/none"):
        local_run("memory://runs/none")


def test_a_second_launcher_is_refused_and_a_silent_one_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_store, "PUBLISH_S", 0.01)
    first = HeldRun(URL)
    with first.held():
        (first.folder / "config.json").write_text("{}")
        in_use = pytest.raises(UserError, match=r"in use by process \d+ on .*choose another --out")
        with in_use, HeldRun(URL).held():
            pytest.fail("two at a time")
        write = ObjectStore.write  # it gives no sign of life any more, as if frozen
        monkeypatch.setattr(
            first.run.store,
            "write",
            lambda n, d: None if "attempts" in n else write(ObjectStore(URL), n, d),
        )
        second = HeldRun(URL)
        with second.held():
            assert (second.folder / "config.json").exists()
            with pytest.raises(SupersededError):
                first.claim()
            assert second.claim() == 3
            (first.folder / "result.json").write_text("a zombie's")
            with pytest.raises(SupersededError):
                first.run.publish()
        (first.folder / "result.json").unlink()
    assert "result.json" not in ObjectStore(URL).list()


def test_a_launcher_whose_process_is_gone_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_store, "BEAT_S", 1000.0)
    gone = HeldRun(URL)._facts() | {"pid": 2**22 + 1}
    ObjectStore(URL).write("attempts/000007.json", json.dumps(gone).encode())
    held = HeldRun(URL)
    with held.held():
        assert held.claim() == 9


def test_nothing_is_left_of_a_run_that_was_refused(cache: Path) -> None:
    held = HeldRun(URL)
    with pytest.raises(UserError, match="wrong"), held.held():
        raise UserError("wrong")
    assert not ObjectStore(URL).list()
    assert not held.folder.exists()


def test_a_store_that_fails_meanwhile_is_tried_again_and_the_copy_stays_if_it_does_not_recover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_store, "PUBLISH_S", 0.01)
    failing, upload = [True], ObjectStore.upload

    def sometimes(store: ObjectStore, files: Any) -> None:
        if failing:
            raise StoreError(f"{store.url}: the store does not answer")
        upload(store, files)

    monkeypatch.setattr(ObjectStore, "upload", sometimes)
    held = HeldRun(URL)
    told = pytest.raises(RunError, match="does not answer; what the run has made lies in ")
    with told as error, held.held():
        (held.folder / "config.json").write_text("{}")
    assert (Path(str(error.value).rpartition(" ")[2]) / "config.json").exists()
    failing.clear()
    other = HeldRun("memory://runs/two")
    with other.held():
        (other.folder / "config.json").write_text("{}")
    assert "config.json" in ObjectStore("memory://runs/two").list()


def test_of_two_that_begin_at_once_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(store: ObjectStore, name: str, data: bytes) -> bool:
        return False

    monkeypatch.setattr(ObjectStore, "create", lost)
    told = pytest.raises(UserError, match="in use by another process, which began just now")
    with told, HeldRun(URL).held():
        pytest.fail("both")


def test_a_finished_run_is_read_where_nothing_may_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(store: ObjectStore, name: str, data: bytes) -> bool:
        raise DeniedError(f"{store.url_of(name)}: access is denied (read only)")

    ObjectStore(URL).write("config.json", b"{}")
    monkeypatch.setattr(ObjectStore, "create", denied)
    held = HeldRun(URL)
    with held.held():
        assert (held.folder / "config.json").exists()
        with pytest.raises(UserError, match=r"--out memory://.*access is denied"):
            held.claim()
    fsspec.filesystem("memory").store.clear()
    with pytest.raises(UserError, match="access is denied"), HeldRun(URL).held():
        pytest.fail("nothing is there")
