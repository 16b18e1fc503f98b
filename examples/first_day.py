"""What one does on a first day: twenty-five small tasks, each with network, data and loss in hand.

    python examples/first_day.py [TASK]

`docs/recipes.md` lists them, with the lines that the same takes elsewhere.
"""

# ruff: noqa: D103
from __future__ import annotations

import ast
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.utils.data import Dataset

import sixfold
from sixfold.sklearn import SixfoldClassifier

_DIGITS = load_digits()
IMAGES: Any = (_DIGITS.images * 15.9).astype(np.uint8)  # (1797, 8, 8)
LABELS: Any = _DIGITS.target
NUMBERS: Any = IMAGES.mean((1, 2)) / 255  # how bright an image is
TAGS: Any = np.stack([LABELS % 2, LABELS > 4, LABELS == 0], 1)  # three labels, 0 or 1


class Net(nn.Module):
    """A network for grey images of 8 x 8 pixels."""

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(width * 16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.features(x).flatten(1))
        return scores


class WithHelp(Net):
    """A network with an auxiliary head, which only training has."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> Any:
        scores = super().forward(x)
        return (scores, self.aux(x.flatten(1))) if self.training else scores


class Digits(Dataset[Any]):
    """A data set of one's own."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(IMAGES[index])[None] / 255, int(LABELS[index])


def focal(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss of one's own, the sum over samples."""
    log_p = output.log_softmax(1).gather(1, target[:, None])[:, 0]
    return -((1 - log_p.exp()) ** 2 * log_p).sum()


def table() -> pd.DataFrame:
    """Images as the bytes of PNG files, with the name of their class."""
    rows = []
    for image, label in zip(IMAGES[:600], LABELS[:600], strict=True):
        Image.fromarray(image).save(file := io.BytesIO(), "PNG")
        rows.append({"image": file.getvalue(), "label": f"digit {label}"})
    return pd.DataFrame(rows)


def own_network_and_data_set() -> Any:
    result = sixfold.train(Net(), Digits(), epochs=2, lr=0.05)
    return result.test_accuracy


def arrays() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), epochs=2, lr=0.05)
    return result.test_accuracy


def data_frame() -> Any:
    result = sixfold.train(Net, table(), epochs=2, lr=0.05)
    return result.test_accuracy


def own_loss() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), loss=focal, epochs=2, lr=0.05)
    return result.test_accuracy


def regression() -> Any:
    result = sixfold.train(Net, (IMAGES, NUMBERS), loss="mse", epochs=2)
    return result.mae


def multi_label() -> Any:
    result = sixfold.train(Net, (IMAGES, TAGS), loss="multi_label", epochs=2)
    return result.mean_average_precision


def class_weights() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), class_weights="balanced", epochs=2)
    return result.balanced_accuracy


def adamw_and_cosine() -> Any:
    options = {"optimizer": torch.optim.AdamW, "lr": 0.002, "schedule": "cosine", "warmup": 0.5}
    result = sixfold.train(Net, (IMAGES, LABELS), weight_decay=0.01, epochs=2, **options)
    return result.test_accuracy


def average_and_clipping() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), ema=0.99, clip_norm=1.0, epochs=2)
    return result.test_accuracy


def learning_rate_finder() -> Any:
    found = sixfold.lr_find(Net, (IMAGES, LABELS))
    return found["suggested_lr"]


def early_stopping() -> Any:
    options = {"validation": 0.1, "early_stopping": ("loss", 1), "final_weights": "best"}
    result = sixfold.train(Net, (IMAGES, LABELS), epochs=8, lr=0.5, **options)
    return result.steps


def callback() -> Any:
    class Watch:
        def on_epoch(self, moment: sixfold.Moment) -> Any:
            return sixfold.Stop("good enough") if moment.metrics["accuracy"] > 0.3 else None

    result = sixfold.train(Net, (IMAGES, LABELS), validation=0.1, callbacks=Watch(), epochs=5)
    return result.stopped_by


def mixup() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), augment=["crop:1", "mixup:0.2"], epochs=2)
    return result.test_accuracy


def fine_tuning() -> Any:
    few = LABELS < 5
    options = {"weights": "net.pth", "freeze": ["features"], "lr": 0.05}
    result = sixfold.train(Net, (IMAGES[few], LABELS[few]), epochs=2, **options)
    return result.test_accuracy


def several_outputs() -> Any:
    result = sixfold.train(WithHelp, (IMAGES, LABELS), aux_weight=0.3, epochs=2, lr=0.05)
    return result.test_accuracy


def new_images() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), epochs=1)
    return result.predict(IMAGES[:5]).labels


def views_at_test_time() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), epochs=1)
    return result.predict(IMAGES[:5], tta="shift:1").labels


def confusion_and_auroc() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), epochs=2, lr=0.05)
    return result.confusion, result.auroc, result.report


def onnx() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), epochs=1)
    return sixfold.export(result, "net.onnx")["bytes"]


def resume_after_a_kill() -> Any:
    started = Path("runs/long").is_dir()
    result = sixfold.train(Net, (IMAGES, LABELS), epochs=4, out="runs/long", resume=started)
    return result.steps


def search_over_settings() -> Any:
    search = {"lr": "log:0.001:0.1", "model.width": [8, 16]}
    found = sixfold.tune(Net, (IMAGES, LABELS), search=search, trials=3, validation=0.2, epochs=1)
    return found.best.values


def grid_search() -> Any:
    classifier = SixfoldClassifier(Net, epochs=1)
    search = GridSearchCV(classifier, {"lr": [0.01, 0.05]}, cv=2).fit(IMAGES, LABELS)
    return search.best_params_


def tensorboard() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), track="tensorboard", epochs=1)
    return result.path


def mlflow() -> Any:
    result = sixfold.train(Net, (IMAGES, LABELS), track="mlflow", epochs=1)
    return result.path


def same_bits_on_two_workers() -> Any:
    one, two = (sixfold.train(Net, (IMAGES, LABELS), epochs=1, workers=n) for n in (1, 2))
    return one.weights_sha256 == two.weights_sha256


TASKS = {
    task.__name__: task
    for task in (
        *(own_network_and_data_set, arrays, data_frame, own_loss, regression, multi_label),
        *(class_weights, adamw_and_cosine, average_and_clipping, learning_rate_finder),
        *(early_stopping, callback, mixup, fine_tuning, several_outputs, new_images),
        *(views_at_test_time, confusion_and_auroc, onnx, resume_after_a_kill),
        *(search_over_settings, grid_search, tensorboard, mlflow, same_bits_on_two_workers),
    )
}


def lines_of(file: Path) -> dict[str, int]:
    """Lines of each task's function, without its head and blank lines."""
    text = file.read_text()
    lines = text.splitlines()
    return {
        node.name: sum(bool(line.strip()) for line in lines[node.lineno : node.end_lineno])
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    }


def main() -> None:
    """Do one task, or all, in a folder that is removed."""
    here, counts = Path.cwd(), lines_of(Path(__file__))
    for name in sys.argv[1:] or TASKS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            torch.save(Net().state_dict(), "net.pth")
            print(f"{name}, {counts[name]} lines: {TASKS[name]()}", flush=True)
            os.chdir(here)


if __name__ == "__main__":
    main()
