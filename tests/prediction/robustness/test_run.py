"""`sixfold evaluate`: the same figures for any number of ranks, from the run's own data."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.spark_masters import EngineProcess

import sixfold
from sixfold.core.errors import UserError
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.engines import open_engine
from sixfold.prediction.robustness.config import DistortionConfig, EvaluateConfig, EvaluationConfig
from sixfold.prediction.robustness.distortions import Distortion
from sixfold.prediction.robustness.ranks import RobustnessJob, robustness_rank
from sixfold.prediction.robustness.run import evaluate_robustness
from sixfold.training.model_card import load_network, weights_file
from sixfold.training.run import train

FEW = {"downsample": "2", "noise": "0.05,0.4", "blur": "", "rotate": "90", "barrel": ""}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(
        sixfold.configure(
            data="digits",
            model="lenet300",
            steps=60,
            lr=0.05,
            engine="inline",
            workers=1,
            out=str(out),
        )
    )
    return out


def evaluate(run: Path, *, workers: int = 1, few: dict[str, Any] = FEW, **changes: Any) -> Any:
    return evaluate_robustness(
        EvaluateConfig(
            evaluation=EvaluationConfig(run=str(run), **changes),
            distortion=DistortionConfig(**{**few, "elastic": "0.5", "examples": 3}),
            engine=EngineConfig(engine="inline", workers=workers),
        )
    )


def test_figures_are_the_same_for_any_number_of_ranks(run: Path, tmp_path: Path) -> None:
    found = [evaluate(run, workers=w, out=str(tmp_path / str(w))) for w in (1, 2, 3)]
    for other in found[1:]:
        for name in ("clean", "distortions", "mean_distorted_accuracy"):
            assert other[name] == found[0][name]
    result = json.loads((run / "result.json").read_text())
    assert found[0]["accuracy"] == result["test_accuracy"]
    by_kind = {kind["kind"]: kind for kind in found[0]["distortions"]}
    assert list(by_kind) == ["downsample", "noise", "rotate", "elastic"]
    weak, strong = by_kind["noise"]["strengths"]
    assert strong["accuracy"] < weak["accuracy"]
    page = (tmp_path / "1" / "report.html").read_text()
    assert page.count("<img ") == 3 * (2 + 3 + 2 + 2)
    assert json.loads((tmp_path / "1" / "result.json").read_text()) == found[0]


def test_rotated_images_are_what_the_network_is_given(run: Path, tmp_path: Path) -> None:
    import torch

    from sixfold.data import BatchMaker, open_data

    found = evaluate(run, out=str(tmp_path / "x"), max_images=50)
    assert found["images"] == 50
    network, card = load_network(weights_file(run))
    part = open_data(DataConfig(data="digits")).test
    indices = np.linspace(0, len(part) - 1, 50).round().astype(int)
    images = Distortion(kind="rotate", strength=90)(part.images(indices), indices)
    batch = torch.from_numpy(BatchMaker(card.statistics()).normalise(images))
    with torch.inference_mode():
        predicted = network(batch).argmax(1).numpy()
    accuracy = float((predicted == part.labels[indices]).mean())
    rotated = next(kind for kind in found["distortions"] if kind["kind"] == "rotate")
    assert rotated["strengths"][0]["accuracy"] == pytest.approx(accuracy)


def test_what_cannot_be_evaluated_is_refused_with_nothing_written(
    run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="trained on 1x8x8 images"):
        evaluate(run, data="synthetic:50x3x8x8", out=str(tmp_path / "out"))
    with pytest.raises(UserError) as caught:
        evaluate(run, few={"noise": "0", "blur": "a"}, max_images=-1)
    assert len(caught.value.problems) == 3
    with pytest.raises(UserError, match="there is no run"):
        evaluate(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.spark
def test_spark_says_the_same(run: Path, spark_local: EngineProcess) -> None:
    job = RobustnessJob(
        weights=weights_file(run),
        trusted="",
        data=DataConfig(data="digits"),
        part="test",
        images=60,
        labels=tuple(range(10)),
        distortions=(
            Distortion(kind="noise", strength=0.1),
            Distortion(kind="elastic", strength=0.5),
        ),
        examples=(0, 5),
    )
    rank = functools.partial(robustness_rank, job)
    alone = open_engine("inline").run_ranks(rank, 1).results[0]
    assert spark_local.run_ranks(rank, 2).results[0] == alone


def test_a_run_is_not_overwritten(run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("config.json", "result.json")}
    with pytest.raises(UserError, match="holds a run, whose result and report would be lost"):
        evaluate(run, out=str(run))
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_place_that_cannot_be_written_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="--out /proc/robustness: cannot be written"):
        evaluate(run, out="/proc/robustness")
