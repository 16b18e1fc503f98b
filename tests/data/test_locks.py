import multiprocessing
import os
from pathlib import Path

import pytest

from sixfold.data.locks import locked
from sixfold.errors import UserError


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
