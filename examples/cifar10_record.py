"""CIFAR-10 in sixteen epochs on the cores of one machine, with the network of `fast_cifar.py`.

    python examples/cifar10_record.py PATH [WORKERS [EPOCHS [OUT]]]

PATH is a folder or an archive of CIFAR-10. The test part is looked at after every second epoch, to
be shown: nothing is chosen by it. The same command goes on where it was stopped.
The recipe is that of K. Jordan, "94% on CIFAR-10 in 3.29 seconds", 2024, with ordinary options; its
learning rate and weight decay are of the mean loss here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_cifar import fast_cifar

import sixfold
from sixfold.data import BatchMaker, open_data, resolve
from sixfold.data.config import DataConfig

BATCH, LR, DECAY = 1000, 1.5, 0.0013
BIAS = 64  # how much faster the shifts of norms learn


def recipe(epochs: float) -> dict[str, object]:
    """Options of the training."""
    return {
        "epochs": epochs,
        "batch_size": BATCH,
        "precision": "bf16",
        "lr": LR,
        "momentum": 0.85,
        "nesterov": True,
        "weight_decay": DECAY,
        "lr_group": (f"*.bias={BIAS}",),
        "weight_decay_group": (f"*.bias={DECAY / BIAS}",),
        "schedule": "polynomial",
        "warmup": 0.23 * epochs,
        "label_smoothing": 0.2,
        "augment": "crop:2,flip-alternate",
        "evaluate_every": 2.0,
    }


def show(event: Mapping[str, Any]) -> None:
    """Print how far the training is, once in twenty steps, and every evaluation."""
    kind = event.get("kind")
    if kind == "progress" and (event["step"] % 20 == 0 or event["step"] == event.get("total")):
        text = f"step {event['step']} of {event.get('total')}, epoch {event['epoch']:.2f}, "
        text += f"loss {event['loss']:.3f}, {event['images_per_s']:.0f} images/s"
    elif kind == "evaluation":
        text = f"epoch {event['epoch']:.2f}: {event['part']} accuracy {event['eval_accuracy']:.2%}"
    elif kind == "note":
        text = str(event["text"])
    else:
        return
    print(time.strftime("%H:%M:%S"), text, flush=True)


def main() -> None:
    """Train, and tell the accuracy, with and without test-time augmentation."""
    path = sys.argv[1]
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    epochs = float(sys.argv[3]) if len(sys.argv) > 3 else 16
    out = sys.argv[4] if len(sys.argv) > 4 else "runs/cifar10"
    data = open_data(resolve(DataConfig(data=f"cifar10:{path}")))
    images, _ = BatchMaker(data)(data.train, np.arange(0, len(data.train), 10))
    torch.manual_seed(0)
    result = sixfold.train(
        fast_cifar(images), f"cifar10:{path}", workers=workers, out=out, on_event=show,
        resume=any(Path(out).glob("checkpoints/step-*")), **recipe(epochs),
    )  # fmt: skip
    print(f"test accuracy {result.test_accuracy:.2%}, weights {result.weights_sha256[:16]}, "
          f"{result.wall_s / 60:.1f} minutes")  # fmt: skip
    told = sixfold.predict(
        result, f"cifar10:{path}", f"{out}.parquet", split="test", tta="flip,shift:1",
        workers=workers,
    )  # fmt: skip
    print(f"with flips and shifts at test time {told['accuracy']:.2%}")


if __name__ == "__main__":
    main()
