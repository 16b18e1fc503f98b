import errno
import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from sixfold.core.errors import RunError, UserError
from sixfold.core.locks import held, locked


def test_a_lock_is_let_go_even_if_a_fork_keeps_its_file_open(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with locked(tmp_path / "a", wait=False):
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    with locked(tmp_path / "a", wait=False):
        pass
    os.close(writer)
    os.close(reader)
    os.waitpid(child, 0)


def hold(folder: Path, ready: str) -> None:
    with locked(folder, wait=True):
        Path(ready).touch()
        os.kill(os.getpid(), 9)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = multiprocessing.get_context("spawn").Process(
        target=hold, args=(tmp_path / "a", str(ready))
    )
    child.start()
    child.join(60)
    assert ready.exists()
    with locked(tmp_path / "a", wait=False):
        pass


def test_a_second_holder_is_refused_or_waits(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match="another process is preparing shards there")
    with locked(tmp_path / "a", wait=False), refused, locked(tmp_path / "a", wait=False):
        pass


def test_the_folder_may_be_removed_while_locked(tmp_path: Path) -> None:
    import shutil

    for _ in range(3):
        with locked(tmp_path / "a", wait=True):
            shutil.rmtree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def no_flock(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("can_lock", [True, False])
def test_whoever_comes_second_is_told_who_has_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_lock: bool
) -> None:
    run = tmp_path / "runs" / "a"
    if not can_lock:
        monkeypatch.setattr("fcntl.flock", no_flock)
    with held(run), pytest.raises(UserError) as refused, held(run):
        pass
    assert f"{run} is in use by process {os.getpid()} on {socket.gethostname()}, since " in str(
        refused.value
    )
    assert not (tmp_path / "runs").exists()  # nothing was put there


def test_the_sign_of_a_killed_process_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", no_flock)
    child = os.fork()
    if not child:
        with held(tmp_path):
            os._exit(0)
    os.waitpid(child, 0)
    sign = tmp_path / ".lock-held"
    assert str(child) in sign.read_text()
    with held(tmp_path):
        assert str(os.getpid()) in sign.read_text()
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not sign.exists()


def test_a_file_is_held_by_a_lock_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    refused = pytest.raises(UserError, match=r"out\.parquet is in use by process")
    with held(out, is_file=True), refused, held(out, is_file=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_its_folder_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    told = pytest.raises(RunError, match=f"no space left on the disk of {tmp_path}/run")
    with told, held(tmp_path / "run"):
        pass
    monkeypatch.undo()
    with held(tmp_path / "run"):  # let go
        pass
