"""What a user of TorchDistributor writes for the job of `spark_fit.py`: a table of JPEGs, a fit.

Lines are counted from `BEGIN` to `END`: without imports, the network, and what only measures.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn


def network(classes: int) -> nn.Module:
    """The network of both, for images 3 x 32 x 32."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 36, classes),
    )  # fmt: skip


# BEGIN
def train(table: str, batch: int, epochs: int, weights: str, measure: Any) -> None:
    """A rank's training."""
    import io
    import os

    import numpy as np
    import pyarrow.parquet as pq
    import torch.distributed as dist
    from PIL import Image
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, TensorDataset
    from torch.utils.data.distributed import DistributedSampler

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rows = pq.read_table(table).to_pydict()
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in rows["image"]]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    labels = torch.tensor(rows["label"])
    dataset = TensorDataset((images - mean) / std, labels)
    sampler = DistributedSampler(dataset, seed=0)
    loader = DataLoader(dataset, batch // dist.get_world_size(), sampler=sampler)
    model = DistributedDataParallel(network(int(labels.max()) + 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            measure(len(inputs) * dist.get_world_size())
    if dist.get_rank() == 0:
        torch.save(model.module.state_dict(), weights)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # a rank with gloo's threads may hang while Python shuts down


# END


def main(table: str, batch: str, epochs: str, weights: str, told: str) -> None:
    """Train, and note each step's end."""
    steps: list[tuple[float, int]] = []

    def measure(images: int) -> None:
        steps.append((time.time(), images))
        Path(told).write_text(json.dumps(steps))

    train(table, int(batch), int(epochs), weights, measure)


if __name__ == "__main__":
    main(*sys.argv[1:])
