"""What a result says of a training's last evaluations."""

from collections.abc import Mapping, Sequence
from typing import Any

from sixfold.data import DataSet
from sixfold.training.config import TrainConfig
from sixfold.training.evaluate import Evaluation
from sixfold.training.progress import Progress
from sixfold.training.selection import Pause, pick, value_of


def told_of(
    final: Mapping[str, Evaluation],
    data: DataSet,
    config: TrainConfig,
    progress: Progress,
    pause: Pause | None,
) -> dict[str, Any]:
    """Test figures, and those of the validation part where there is one."""
    figures: dict[str, Any] = {}
    if (found := final.get("validation")) is not None:
        figures |= {f"validation_{name}": value for name, value in found.metrics().items()}
        figures |= judged_by(pause, found, data.classes)
        if progress.best_step >= 0:
            figures["best_step"] = progress.best_step
            metric = config.selection.best or usual_metric(found)
            figures[f"best_validation_{metric}"] = value_of(metric, progress.best_accuracy)
    if (found := final.get("test")) is not None:
        figures |= {"test_loss": found.loss}
        figures |= found.summary(data.classes, data.test.names)
    return figures


def metrics_of(found: Evaluation, classes: Sequence[str]) -> dict[str, float | None]:
    """What may be selected by."""
    more = found.summary(classes, part="")
    known = {name: value for name, value in more.items() if isinstance(value, float)}
    return known | found.metrics()


def usual_metric(found: Evaluation | None) -> str:
    """By what the best is chosen if nobody says; read on rank 0, which has the evaluation."""
    return "loss" if found is not None and found.accuracy is None else "accuracy"


def judged_by(
    pause: Pause | None, found: Evaluation | None, classes: Sequence[str]
) -> dict[str, float | None]:
    """The metric that a training is judged by where it pauses."""
    if pause is None or found is None:
        return {}
    metric = pause.metric or usual_metric(found)
    return {f"validation_{metric}": pick("--metric", metric, metrics_of(found, classes))}


def line_of(part: str, found: Evaluation, epoch: float, spent_s: float | None) -> dict[str, Any]:
    """An evaluation as the metrics have it."""
    figures = {f"eval_{name}": value for name, value in found.metrics().items()}
    line = {"epoch": epoch, "part": part, **figures}
    return line if spent_s is None else line | {"eval_s": round(spent_s, 6)}


def images_per_s(begin: tuple[float, int] | None, ended: float, images: int) -> float | None:
    """Images over wall time, both from a time and number of images on; pauses are left out."""
    if begin is None:
        return None
    spent_s, done = ended - begin[0], images - begin[1]
    return round(done / spent_s, 3) if done and spent_s > 0 else None
