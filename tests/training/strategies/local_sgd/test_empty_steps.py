from collections.abc import Callable
from pathlib import Path

from sixfold.training.config import TrainConfig
from sixfold.training.run import train


def test_a_worker_without_an_image_of_a_step_learns_nothing_from_it(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """160 images are 53 or 54 for each of three workers, and some are through before others."""
    settings = {"strategy": "local_sgd", "local_steps": 3, "workers": 3, "batch_size": 20}
    result = train(configure(**settings, steps=20, out=str(tmp_path / "run")))
    assert result["steps"] == 20
