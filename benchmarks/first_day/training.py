"""Networks, data, losses and optimizers of `examples/first_day.py`, with Lightning."""

# mypy: ignore-errors
# ruff: noqa: ARG002, D103, PT019
from __future__ import annotations

import io
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split
from torchmetrics.functional import accuracy

from benchmarks.first_day.given import FAST, LABELS, NUMBERS, TAGS, Digits, Net, X, Y, focal, table


def own_network_and_data_set() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    train, test = random_split(Digits(), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def arrays() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def data_frame() -> Any:
    class Table(Dataset):
        def __init__(self, frame):
            self.images = list(frame.image)
            self.labels = frame.label.astype("category").cat.codes.to_numpy(np.int64)

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            image = np.array(Image.open(io.BytesIO(self.images[index])))
            return torch.from_numpy(image)[None] / 255, self.labels[index]

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    train, test = random_split(Table(table()), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def own_loss() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return focal(self.net(batch[0]), batch[1]) / len(batch[1])

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def regression() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(1)

        def training_step(self, batch, _):
            return functional.mse_loss(self.net(batch[0])[:, 0], batch[1])

        def test_step(self, batch, _):
            self.log("mae", functional.l1_loss(self.net(batch[0])[:, 0], batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    train, test = random_split(TensorDataset(X, torch.tensor(NUMBERS).float()), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def multi_label() -> Any:
    from torchmetrics.classification import MultilabelAveragePrecision

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(3)
            self.precision = MultilabelAveragePrecision(3)

        def training_step(self, batch, _):
            return functional.binary_cross_entropy_with_logits(self.net(batch[0]), batch[1].float())

        def test_step(self, batch, _):
            self.precision(self.net(batch[0]), batch[1])
            self.log("mean_average_precision", self.precision)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    train, test = random_split(TensorDataset(X, torch.from_numpy(TAGS)), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def class_weights() -> Any:
    from sklearn.utils.class_weight import compute_class_weight

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()
            counted = compute_class_weight("balanced", classes=np.unique(LABELS), y=LABELS)
            self.weight = torch.tensor(counted).float()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1], self.weight)

        def test_step(self, batch, _):
            balanced = accuracy(
                self.net(batch[0]), batch[1], "multiclass", num_classes=10, average="macro"
            )
            self.log("balanced", balanced)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def adamw_and_cosine() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.002, weight_decay=0.01)
            steps = self.trainer.estimated_stepping_batches
            rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=steps // 4)
            fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - steps // 4)
            both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [steps // 4])
            return [optimizer], [{"scheduler": both, "interval": "step"}]

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def average_and_clipping() -> Any:
    from lightning.pytorch.callbacks import EMAWeightAveraging

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = (
        lightning.Trainer(
            max_epochs=2, gradient_clip_val=1.0, callbacks=EMAWeightAveraging(decay=0.99), **FAST
        ),
        Task(),
    )
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def learning_rate_finder() -> Any:
    from lightning.pytorch.tuner import Tuner

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()
            self.lr = 0.01

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    loader = DataLoader(TensorDataset(X, Y), 64, shuffle=True)
    found = Tuner(lightning.Trainer(max_epochs=5, **FAST)).lr_find(Task(), loader, max_lr=10)
    return found.suggestion()


def early_stopping() -> Any:
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log("loss", functional.cross_entropy(self.net(batch[0]), batch[1]))

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)

    train, held, test = random_split(TensorDataset(X, Y), [0.7, 0.1, 0.2])
    best = ModelCheckpoint(monitor="loss")
    watch = [EarlyStopping("loss", patience=1), best]
    trainer, task = lightning.Trainer(max_epochs=8, callbacks=watch, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True), DataLoader(held, 64))
    trainer.test(task, DataLoader(test, 64), ckpt_path=best.best_model_path, verbose=False)
    return trainer.global_step


def callback() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log(
                "accuracy", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10)
            )

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    class Watch(lightning.Callback):
        def on_validation_epoch_end(self, trainer, module):
            trainer.should_stop = trainer.callback_metrics["accuracy"] > 0.3

    train, held = random_split(TensorDataset(X, Y), [0.9, 0.1])
    trainer, task = lightning.Trainer(max_epochs=5, callbacks=Watch(), **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True), DataLoader(held, 64))
    return trainer.current_epoch


def mixup() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            images, labels = batch
            images = functional.pad(images, (1, 1, 1, 1))
            top, left = torch.randint(0, 3, (2,)).tolist()
            images = images[:, :, top : top + 8, left : left + 8]
            share = np.random.default_rng().beta(0.2, 0.2)
            order = torch.randperm(len(images))
            scores = self.net(share * images + (1 - share) * images[order])
            own, other = (functional.cross_entropy(scores, y) for y in (labels, labels[order]))
            return share * own + (1 - share) * other

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)
