"""Settings of a prediction."""

from dataclasses import dataclass

from sixfold.core.config import IMAGE_COLUMN, LABEL_COLUMN, ON_ERROR, PIXEL_RANGE, PIXEL_RANGES
from sixfold.core.settings import Settings, option
from sixfold.data.config import MOST_SIDE
from sixfold.distributed.config import EngineConfig

OTHER_FORMATS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".npy", ".feather", ".arrow")


@dataclass(frozen=True, kw_only=True)
class ScoringConfig(Settings):
    """Which network scores which images."""

    run: str = option(
        "", "run directory of `sixfold train`, its model.safetensors, or a model.sixz"
    )
    split: str = option(
        "auto",
        "which images; auto: the test part of a set that came with one or that the run was "
        "trained on, else all",
        choices=("auto", "test", "train", "all"),
    )
    resize: int | None = option(
        None,
        "resize images to this many pixels a side (default: what the network was trained on)",
        ge=1,
        le=MOST_SIDE,
    )
    image_column: str | None = option(None, IMAGE_COLUMN)
    pixel_range: str | None = option(None, PIXEL_RANGE, choices=PIXEL_RANGES)
    label_column: str | None = option(None, LABEL_COLUMN)
    on_error: str = option("fail", ON_ERROR, choices=("fail", "skip"))
    tta: str = option(
        "none",
        "test-time augmentation: average the network's outputs (before softmax) over views of each "
        "image: none, flip, shift:PIXELS (up, down, left, right), or flip,shift:1",
        form="LIST",
    )
    trust_model: bool = option(
        False, "run the code that the weights name even if it is not your project's"
    )

    def cross_problems(self) -> list[str]:
        """What is wrong with `--tta`."""
        from sixfold.data.augmentation.views import view_problems

        return view_problems(self.tta)


@dataclass(frozen=True, kw_only=True)
class PredictionConfig(ScoringConfig):
    """What is classified, with what, and where the result goes."""

    data: str | None = option(
        None,
        "data set, as for `sixfold train`, or images:PATH for pictures without labels (default: "
        "what the network was trained on)",
    )
    out: str = option(
        "", "Parquet file for the result, a path or a URL; figures go to FILE.json beside it"
    )
    overwrite: bool = option(
        False, "replace a file that no prediction has written (an older prediction is replaced)"
    )
    sparse: str | None = option(
        None, "run pruned layers in the sparse forms that this file of `sixfold sparse` names"
    )
    id_column: str | None = option(None, "column of a Parquet table that names its rows; kept")
    keep_columns: str = option("", "further columns to keep beside the predictions, such as a,b")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Settings):
    """Everything that `sixfold predict` takes."""

    prediction: PredictionConfig = PredictionConfig()
    engine: EngineConfig = EngineConfig()

    def cross_problems(self) -> list[str]:
        """What is missing."""
        found = self.engine.range_problems("predict")
        if not self.prediction.run:
            found.append("give the run to predict with: sixfold predict RUN --data SPEC --out FILE")
        if not self.prediction.out:
            found.append("--out FILE: give the Parquet file for the result")
        if self.prediction.out.lower().endswith(OTHER_FORMATS):
            found.append(
                f"--out {self.prediction.out}: predictions are written as Parquet: give a name "
                "that ends in .parquet (pandas.read_parquet(FILE).to_csv(...) writes CSV)"
            )
        return found
