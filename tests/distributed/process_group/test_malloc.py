"""Freed memory: a rank does not fetch the same pages again in every step."""

import subprocess
import sys

import pytest

from sixfold.distributed.process_group import malloc

PROBE = """
import resource
import numpy as np
from sixfold.distributed.process_group.malloc import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        held = [np.ones(3 << 20, np.uint8) for _ in range(4)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    faults()
    print(faults())
"""


@pytest.mark.skipif(malloc._library() is None, reason="another C library than glibc")
def test_memory_that_is_freed_and_wanted_again_takes_no_page_faults() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    kept = int(found.stdout)
    pages = 20 * 4 * (3 << 20) // 4096
    assert kept < pages / 10


def test_where_the_c_library_is_another_one_nothing_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(malloc, "_library", lambda: None)
    assert not malloc.retain_freed_memory()
    with malloc.freed_memory_kept():
        pass
