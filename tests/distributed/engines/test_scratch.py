"""Temporary folders of processes that were killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sixfold.distributed.engines.scratch import scratch_folder


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left = tmp_path / f"sixfold-scratch-{dead.pid}-abc"
    (left / "sub").mkdir(parents=True)
    living = tmp_path / f"sixfold-scratch-{os.getpid()}-abc"
    living.mkdir()
    other = tmp_path / "sixfold-scratch-notes"
    other.mkdir()
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
        assert not left.exists()
        assert living.exists()
        assert other.exists()
    assert not folder.exists()
