"""What a training has come to: figures, history, charts, and the network, ready to predict."""

from __future__ import annotations

import functools
import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sixfold.core.errors import UserError
from sixfold.core.run_directory import read_json_lines, read_whole_json
from sixfold.core.run_store import local_run

if TYPE_CHECKING:
    from sixfold.api.predictions import Predictions
    from sixfold.training.classifier import Classifier


_OF_TEST = (
    *("balanced_accuracy", "top5_accuracy", "precision", "recall", "f1", "auroc"),
    *("calibration_error", "confusion", "mean_average_precision"),
)
"""Fields of `result.json` that are of the test images without saying so."""


def _of_test(name: str) -> list[str]:
    return [known for known in _OF_TEST if name == f"test_{known}"]


class History(list[dict[str, Any]]):
    """The lines of `metrics.jsonl`: one for each logged step, and one for each evaluation."""

    def to_pandas(self) -> Any:
        """As a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(list(self))

    def to_arrow(self) -> Any:
        """As an Arrow table."""
        import pyarrow as pa

        names = dict.fromkeys(name for line in self for name in line)
        return pa.table({name: [line.get(name) for line in self] for name in names})


class TrainResult(Mapping[str, Any]):
    """A finished training in `path`; every field of `result.json` is an attribute and an item.

    Attributes take figures of the test images with ``test_`` before their name and without.
    """

    test_accuracy: float
    test_loss: float
    train_images_per_s: float | None
    wall_s: float
    startup_s: float
    steps: int
    epochs: float
    weights_sha256: str
    strategy: str
    engine: str
    workers: int
    restarts: int
    report: str
    versions: dict[str, str]

    def __init__(self, figures: Mapping[str, Any], path: Path, network: str = "") -> None:
        """`network` names the one that the caller has given, whose code may be run."""
        self._figures = dict(figures)
        self._network = network
        self.path = path

    def __getitem__(self, name: str) -> Any:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def __getattr__(self, name: str) -> Any:
        for known in (name, f"test_{name}", *_of_test(name)):
            if not name.startswith("_") and known in self._figures:
                return self._figures[known]
        raise AttributeError(f"the result of this training has no {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._figures})

    @functools.cached_property
    def history(self) -> History:
        """Loss, accuracy, rate and speed of each logged step, and the evaluations."""
        return History(read_json_lines(self.path / "metrics.jsonl"))

    def figures(self) -> dict[str, Any]:
        """The charts of the report as plotly figures, by name."""
        from sixfold.training.report.page import figures

        return figures(self.path)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores."""
        return self.model().classes

    def model(self, *, trust_model: bool = False, tta: str = "none") -> Classifier:
        """The trained network, which takes raw images (N, C, H, W), uint8 or from 0 to 1.

        `tta` averages its outputs over views of each image: "flip", "flip,shift:1".
        """
        from sixfold.compression.loading import load

        return load(self.path, trust_model=trust_model or self.is_own(), tta=tta)

    def is_own(self) -> bool:
        """Whether the weights are of the very network that the caller has given to `train`."""
        from sixfold.compression.loading import read_card
        from sixfold.training.model_card import weights_file

        if not self._network:
            return False
        return read_card(weights_file(self.path), trust=True).model == self._network

    def predict(
        self, data: Any, *, batch_size: int = 256, tta: str = "none", **options: Any
    ) -> Predictions:
        """Class and scores of images, in this process.

        Args:
            data: images as an array or tensor, or whatever `sixfold.train` takes, without labels.
            batch_size: images at a time.
            tta: views of each image over which outputs are averaged: "flip", "flip,shift:1".
            **options: `resize`, `image_column`, `label_column`, where data need them.
        """
        from sixfold.api.predictions import predict

        return predict(self.model(tta=tta), data, batch_size=batch_size, **options)

    def __repr__(self) -> str:
        shown = [f"test {name} {value}" for name, value in self._main() if name != "weights"]
        sha256 = str(self._figures.get("weights_sha256", ""))[:12]
        return f"<TrainResult {self.path.name}: {', '.join([*shown, f'weights {sha256}'])}>"

    def _main(self) -> list[tuple[str, str]]:
        found = self._figures
        rows = []
        if (accuracy := found.get("test_accuracy")) is not None:
            rows.append(("accuracy", f"{accuracy:.2%}"))
        if (loss := found.get("test_loss")) is not None:
            rows.append(("loss", f"{loss:.4f}"))
        return rows

    def _repr_html_(self) -> str:
        found = self._figures
        rows = [(f"test {name}", value) for name, value in self._main()]
        rows += [
            ("steps, epochs", f"{found['steps']:,}, {found['epochs']:g}"),
            ("workers", f"{found['workers']} ({found['engine']}, {found['strategy']})"),
            ("wall time", f"{found['wall_s']:.1f} s"),
            ("weights", found["weights_sha256"]),
        ]
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows
        )
        link = html.escape(Path(self.report).absolute().as_uri(), quote=True)
        return f'<table>{cells}</table><a href="{link}">report</a>'


def open_run(path: str | Path) -> TrainResult:
    """The result of a finished training from its run directory; a `UserError` if there is none."""
    folder = local_run(path)
    figures = read_whole_json(folder / "result.json")
    if figures is None or "weights_sha256" not in figures:
        if not folder.is_dir():
            raise UserError(f"there is no run directory {folder}")
        raise UserError(
            f"{folder} holds no result of a training: it is not finished (train again with "
            "resume=True) or it is no run directory"
        )
    return TrainResult(figures, folder)
