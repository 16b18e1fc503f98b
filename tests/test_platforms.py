"""Systems that the tests do not run on: what is refused there, and what takes another way."""

import os
import subprocess
import sys
import time

import pytest

from sixfold import __main__ as entry
from sixfold.core.environment import peak_resident_bytes
from sixfold.distributed.engines import fork_server


def test_windows_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_fork_server_reaps_children_without_waitid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid")
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0)
    assert child.stdin is not None
    assert fork_server._status(child.pid) is None
    child.stdin.close()
    status = None
    while status is None:
        time.sleep(0.01)
        status = fork_server._status(child.pid)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0


def test_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    linux = peak_resident_bytes()
    assert 1 << 20 < linux < 1 << 40
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_resident_bytes() >= linux // 1024
