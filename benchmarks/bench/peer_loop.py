"""The peers' own process: a plain PyTorch training loop, alone or under DistributedDataParallel.

Started as a script, by `benchmarks.bench.contenders` or, once per rank, by torchrun on behalf of
TorchDistributor. It gets the peers' best case: normalised images as tensors in memory, read in
order as views, so that neither decoding nor copying nor shuffling is in the loop.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sixfold.data.config import DataConfig
from sixfold.models.config import ModelConfig

MAX_IMAGES = 10_000
"""Images kept in memory; more would only take longer to load."""


def main(task_path: Path) -> None:
    """Measure as the task says; write images/s, peak memory and the first step's end as JSON.

    Args:
        task_path: JSON with `data` (a resolved DataConfig), `model`, `batch`, `steps` or
            `seconds`, `first_timed_step`, `threads`, `ways` (of `compiled`, `channels_last` and
            `autocast`) and `result`.
    """
    task = json.loads(task_path.read_text(encoding="utf-8"))
    torch.set_num_threads(task["threads"])
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    images, labels, model = load(task)
    if "channels_last" in task["ways"]:
        images = images.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if size > 1:
        end_with_parent()
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
        model = nn.parallel.DistributedDataParallel(model)
    if "compiled" in task["ways"]:
        model = torch.compile(model)  # type: ignore[assignment]
    ended: list[float] = []
    rate = train(task, model, images, labels, rank, size, ended)
    if rank == 0:
        found = {
            "images_per_s": rate,
            "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "first_step_at": ended[0],
        }
        Path(task["result"]).write_text(json.dumps(found), encoding="utf-8")
    if size > 1:
        # Without it a rank that is done may close connections that another still reads from.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        # Now and then, on a busy machine, a rank with gloo's threads hangs while Python shuts
        # down (torch 2.13), and TorchDistributor waits for it without end.
        os._exit(0)


def end_with_parent() -> None:
    """End this rank when torchrun is gone: it puts ranks into sessions of their own.

    So a signal to the process group of a measurement that hangs does not reach them.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def load(task: dict[str, Any]) -> tuple[Tensor, Tensor, nn.Module]:
    """Images (N, C, H, W), labels (N,), and the same network that Sixfold trains."""
    from sixfold import data, models

    opened = data.open_data(DataConfig(**task["data"]))
    indices = np.arange(min(len(opened.train), max(MAX_IMAGES, task["batch"])))
    images, labels = data.BatchMaker(opened)(opened.train, indices)
    model = models.build(
        ModelConfig(model=task["model"]), shape=opened.shape, classes=len(opened.classes), seed=0
    )
    return images, labels, model.train()


def own_range(batch: int, rank: int, size: int) -> tuple[int, int]:
    """First and one-past-last image of a batch that a rank takes.

    >>> [own_range(10, rank, 3) for rank in range(3)]
    [(0, 3), (3, 6), (6, 10)]
    """
    return batch * rank // size, batch * (rank + 1) // size


def train(
    task: dict[str, Any],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    rank: int,
    size: int,
    ended: list[float],
) -> float:
    """Train for so many steps or seconds; the end of the first, in Unix seconds, goes to `ended`.

    Returns:
        Images/s of all ranks together, from the end of the first timed step to the last.
    """
    batch, first = task["batch"], task["first_timed_step"]
    low, high = own_range(batch, rank, size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    starts = max(1, len(images) // batch)
    begin, steps = 0.0, 0
    while True:
        start = (steps % starts) * batch
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in task["ways"]):
            logits = model(images[start + low : start + high])
        loss = nn.functional.cross_entropy(logits.float(), labels[start + low : start + high])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
        now = time.perf_counter()
        if steps == 1:
            ended.append(time.time())
        if steps == first:
            begin = now
        elif steps > first and _is_over(task, steps, now - begin):
            return float((steps - first) * batch / (now - begin))


def _is_over(task: dict[str, Any], steps: int, spent_s: float) -> bool:
    """Whether the last step is done; by the clock only where there is a single rank."""
    if task["steps"] is not None:
        return bool(steps >= task["steps"])
    return bool(spent_s >= task["seconds"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
