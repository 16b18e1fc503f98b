"""Samples of processors' use: a process that is busy is seen to be."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sixfold.perf.profile import sampling
from sixfold.perf.profile.memory import watched_memory
from sixfold.perf.profile.sampling import descendants, parse_gpus, sampled

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_a_busy_child_is_seen() -> None:
    code = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    with sampled(0.05) as samples:
        child = subprocess.Popen([sys.executable, "-c", code])
        child.wait()
    spent = sum(shares.get(child.pid, 0.0) * 0.05 for _, shares in samples.processors)
    assert 0.1 < spent < 2
    assert child.pid in samples.processes
    assert os.getpid() in samples.processes
    plain = samples.as_plain()
    assert str(child.pid) in plain["processes"]


def test_no_samples_where_none_are_wanted() -> None:
    with sampled(0) as samples:
        time.sleep(0.01)
    assert samples.processors == []


def test_only_descendants_are_seen() -> None:
    child = subprocess.Popen(["sleep", "5"])
    try:
        assert child.pid in descendants(os.getpid())
        assert list(descendants(child.pid)) == [child.pid]
    finally:
        child.kill()
        child.wait()


def test_a_gpu_is_asked_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, 37, 1024'\necho '1, 0, 3'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sampling, "_GPU_EVERY_S", 0.05)
    with sampled(0.05) as samples:
        time.sleep(0.3)
    assert samples.has_gpu
    assert samples.gpus[0][1] == {0: (0.37, 1 << 30), 1: (0.0, 3 << 20)}
    assert parse_gpus("") == {}


def test_the_peak_of_memory_is_measured() -> None:
    import torch

    before = psutil.Process().memory_info().rss
    with watched_memory() as peak:
        held = torch.zeros(4 << 20)  # 16 MB
        more = held + 1
        del more
        again = held * 2
        del again
    assert before > 1 << 20
    assert 32 << 20 <= peak.tensor_bytes < 34 << 20
    assert peak.process_bytes >= before
