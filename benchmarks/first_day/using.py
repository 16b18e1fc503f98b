"""The later tasks of `examples/first_day.py`, with Lightning, Optuna and skorch."""

# mypy: ignore-errors
# ruff: noqa: D103, PT019
from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics.functional import accuracy

from benchmarks.first_day.given import FAST, LABELS, Net, WithHelp, X, Y


def fine_tuning() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(5)
            state = torch.load("net.pth", weights_only=True)
            body = {name: state[name] for name in state if not name.startswith("head")}
            self.net.load_state_dict(body, strict=False)
            self.net.features.requires_grad_(False)

        def training_step(self, batch, _):
            self.net.features.eval()
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=5))

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.head.parameters(), lr=0.05, momentum=0.9)

    few = LABELS < 5
    train, test = random_split(TensorDataset(X[few], Y[few]), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def several_outputs() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = WithHelp()

        def training_step(self, batch, _):
            scores, aux = self.net(batch[0])
            helping = functional.cross_entropy(aux, batch[1])
            return functional.cross_entropy(scores, batch[1]) + 0.3 * helping

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def new_images() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def predict_step(self, batch, _):
            return self.net(batch[0]).argmax(1)

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    loader = DataLoader(TensorDataset(X, Y), 64, shuffle=True)
    trainer, task = lightning.Trainer(max_epochs=1, **FAST), Task()
    trainer.fit(task, loader)
    return trainer.predict(task, DataLoader(TensorDataset(X[:5]), 5))


def views_at_test_time() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def predict_step(self, batch, _):
            padded = functional.pad(batch[0], (1, 1, 1, 1), mode="replicate")
            places = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
            views = [padded[:, :, top : top + 8, left : left + 8] for top, left in places]
            return sum(self.net(view) for view in views).argmax(1)

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    loader = DataLoader(TensorDataset(X, Y), 64, shuffle=True)
    trainer, task = lightning.Trainer(max_epochs=1, **FAST), Task()
    trainer.fit(task, loader)
    return trainer.predict(task, DataLoader(TensorDataset(X[:5]), 5))


def confusion_and_auroc() -> Any:
    from torchmetrics.classification import MulticlassAUROC, MulticlassConfusionMatrix

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()
            self.confusion, self.auroc = MulticlassConfusionMatrix(10), MulticlassAUROC(10)

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def test_step(self, batch, _):
            scores = self.net(batch[0])
            self.confusion(scores, batch[1])
            self.auroc(scores, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    trainer, task = lightning.Trainer(max_epochs=2, **FAST), Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    trainer.test(task, DataLoader(test, 64), verbose=False)
    return task.confusion.compute(), task.auroc.compute()


def onnx() -> Any:
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    task = Task()
    loader = DataLoader(TensorDataset(X, Y), 64, shuffle=True)
    lightning.Trainer(max_epochs=1, **FAST).fit(task, loader)
    task.to_onnx("net.onnx", X[:1], dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},))
    return Path("net.onnx").stat().st_size


def resume_after_a_kill() -> Any:
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    keep = ModelCheckpoint("runs/long", save_last=True)
    trainer = lightning.Trainer(max_epochs=4, callbacks=keep, **FAST)
    last = "runs/long/last.ckpt" if Path("runs/long/last.ckpt").exists() else None
    loader = DataLoader(TensorDataset(X, Y), 64, shuffle=True)
    trainer.fit(Task(), loader, ckpt_path=last)
    return trainer.global_step


def search_over_settings() -> Any:
    import optuna

    class Task(lightning.LightningModule):
        def __init__(self, lr, width):
            super().__init__()
            self.net, self.lr = Net(width=width), lr

        def training_step(self, batch, _):
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log(
                "accuracy", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10)
            )

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    train, held, _ = random_split(TensorDataset(X, Y), [0.6, 0.2, 0.2])

    def objective(trial):
        lr = trial.suggest_float("lr", 0.001, 0.1, log=True)
        task = Task(lr, trial.suggest_categorical("width", [8, 16]))
        trainer = lightning.Trainer(max_epochs=1, **FAST)
        trainer.fit(task, DataLoader(train, 64, shuffle=True), DataLoader(held, 64))
        return trainer.callback_metrics["accuracy"].item()

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.HyperbandPruner())
    study.optimize(objective, n_trials=3)
    return study.best_params


def grid_search() -> Any:
    from sklearn.model_selection import GridSearchCV
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        Net,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        max_epochs=1,
        verbose=0,
    )
    search = GridSearchCV(net, {"lr": [0.01, 0.05]}, cv=2).fit(X.numpy(), LABELS)
    return search.best_params_


def tensorboard() -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train/loss", loss)
            return loss

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    logger = TensorBoardLogger("runs")
    trainer = lightning.Trainer(max_epochs=1, **FAST | {"logger": logger})
    task = Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)


def mlflow() -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _):
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train/loss", loss)
            return loss

        def test_step(self, batch, _):
            self.log("test", accuracy(self.net(batch[0]), batch[1], "multiclass", num_classes=10))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    train, test = random_split(TensorDataset(X, Y), [0.8, 0.2])
    logger = MLFlowLogger(log_model=True)
    trainer = lightning.Trainer(max_epochs=1, **FAST | {"logger": logger})
    task = Task()
    trainer.fit(task, DataLoader(train, 64, shuffle=True))
    return trainer.test(task, DataLoader(test, 64), verbose=False)
