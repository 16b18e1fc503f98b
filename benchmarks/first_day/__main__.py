"""The tasks of `examples/first_day.py` with Lightning, with skorch where scikit-learn is asked for.

    PYTHON -m benchmarks.first_day [TASK]

PYTHON is an interpreter that has lightning, skorch, and what the task asks for besides. Network,
data and loss are those of the example; whatever else a task needs stands in its function, so that
its lines can be counted. MixUp is written out, since torchvision is not needed for anything else.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.first_day import training, using
from benchmarks.first_day.given import TASKS, Net


def main() -> None:
    """Do one task, or all, each in a folder that is removed."""
    here = Path.cwd()
    for name in sys.argv[1:] or TASKS:
        task = getattr(training, name, None) or getattr(using, name, None)
        if task is None:
            print(f"{name}: not offered")
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            torch.save(Net().state_dict(), "net.pth")
            print(f"{name}: {task()}", flush=True)
            os.chdir(here)


if __name__ == "__main__":
    main()
