"""A table for every kind of targets, and losses and networks as users write them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 60


def write_table(folder: Path) -> str:
    """Images of 8x8 pixels with a class, two classes, labels, two numbers, and weights."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (ROWS, 8, 8))
    kind = np.arange(ROWS) % 3
    images[kind == 1, :4] //= 4
    images[kind == 2, 4:] //= 4
    bright = images.mean((1, 2)) / 255
    columns = {
        "image": images.tolist(),
        "kind": [f"kind {k}" for k in kind],
        "dark": np.where(kind == 0, "no", "yes"),
        "parts": [["top", "bottom"][k - 1 : k] if k else [] for k in kind],
        "bright": bright,
        "top": images[:, :4].mean((1, 2)) / 255,
        "weight": 0.5 + kind,
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    return f"parquet:{folder}"


def own_sum(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy by samples, times their weights."""
    return (functional.cross_entropy(output, target, reduction="none") * weight).sum()


def own_of_both(outputs: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Cross-entropy of two outputs."""
    main, head = outputs
    whole = functional.cross_entropy(main, target, reduction="sum")
    return whole + 0.5 * functional.cross_entropy(head, target, reduction="sum")


def mean(output: Tensor, target: Tensor) -> Tensor:
    """What a step must not be given."""
    return functional.cross_entropy(output, target)


def moody(output: Tensor, target: Tensor) -> Tensor:
    """What gives another value each time."""
    return functional.cross_entropy(output, target, reduction="sum") * torch.rand(())


class TwoHeads(nn.Module):
    """A network with an auxiliary head, its outputs as a tuple or a dictionary."""

    def __init__(self, classes: int = 3, named: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.main, self.head = nn.Linear(256, classes), nn.Linear(64, classes)
        self.named = named

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        """Scores of both heads."""
        head, main = self.head(x.flatten(1)), self.main(self.body(x).flatten(1))
        return {"aux": head, "out": main} if self.named else (main, head)
