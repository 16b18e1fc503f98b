"""Shared memory that leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sixfold.distributed.process_group.shared_memory import SharedMemory

CHILD = """
import os, sys, time, numpy as np
from sixfold.distributed.process_group.shared_memory import SharedMemory
memory = SharedMemory.attach(sys.argv[1], 4096)
memory.array(np.float64, 64, 4)[:] += 1.0
print("done", flush=True)
time.sleep(60)
"""


def test_another_process_writes_what_this_one_reads_and_no_file_is_made() -> None:
    with SharedMemory.create(4096) as memory:
        values = memory.array(np.float64, 64, 4)
        values[:] = np.arange(4)
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, memory.path], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "done\n"
            child.send_signal(signal.SIGKILL)
        assert values.tolist() == [1.0, 2.0, 3.0, 4.0]
        # It has a name in no directory, so there is nothing that a dead process could leave.
        assert Path(memory.path).readlink().name == "memfd:sixfold (deleted)"


def test_once_sealed_nobody_gets_in_and_who_is_in_stays() -> None:
    ours = SharedMemory.create(64)
    theirs = SharedMemory.attach(ours.path, 64)
    path, descriptors = ours.path, len(list(Path("/proc/self/fd").iterdir()))
    ours.seal()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors - 1
    with pytest.raises(OSError):
        SharedMemory.attach(path, 64)
    ours.array(np.int64, 0, 8)[:] = 5
    assert theirs.array(np.int64, 0, 8).tolist() == [5] * 8


def test_an_array_keeps_its_memory() -> None:
    with SharedMemory.create(64) as memory:
        values = memory.array(np.float32, 0, 16)
    values[:] = 3.0
    assert values.sum() == 48.0


def test_memory_smaller_than_expected_is_refused() -> None:
    with SharedMemory.create(64) as memory, pytest.raises(ValueError):
        SharedMemory.attach(memory.path, 8192)


def test_a_system_without_such_files_has_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with SharedMemory.create(64) as memory:
        assert memory.path == ""
        assert memory.array(np.float32, 0, 4).tolist() == [0.0] * 4
