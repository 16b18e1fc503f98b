"""A folder's validation part is one, if there is a test part too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sixfold.data import DataSet, open_data, resolve
from sixfold.data.config import DataConfig, PreparationConfig, PrepareConfig
from sixfold.data.run import prepare
from sixfold.distributed.config import EngineConfig
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

FolderMaker = Callable[..., Path]
COUNTS = {"train/a": 6, "train/b": 6, "val/a": 2, "val/b": 3, "test/a": 4, "test/b": 4}


def opened(path: Path, cache: Path, **settings: Any) -> DataSet:
    config = DataConfig(data=f"folder:{path}", resize=8, **settings)
    return open_data(resolve(config, cache=cache))


@pytest.mark.parametrize("name", ["val", "valid", "validation", "valImages", "dev"])
def test_a_validation_part_beside_a_test_part(
    image_folder: FolderMaker, tmp_path: Path, name: str
) -> None:
    source = image_folder({k.replace("val", name): count for k, count in COUNTS.items()})
    found = opened(source, tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 5, 8]
    assert all(n.startswith(f"{name}/") for n in found.validation.names(np.arange(5)))
    assert found.validation.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.split == f"folders train, test; {name} is the validation part"
    assert not found.bad
    other = opened(source, tmp_path, validation=0.25)
    assert [len(part) for part in (other.train, other.validation, other.test)] == [8, 4, 8]
    (line,) = other.bad
    assert line == "validation part: 5 images: not used, since --validation cuts another"


def test_alone_it_is_the_test_part(image_folder: FolderMaker, tmp_path: Path) -> None:
    source = image_folder({k: count for k, count in COUNTS.items() if not k.startswith("test")})
    found = opened(source, tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 0, 5]


def test_prepared_shards_keep_it_at_another_size(image_folder: FolderMaker, tmp_path: Path) -> None:
    source = image_folder(COUNTS)
    made = prepare(
        PrepareConfig(
            preparation=PreparationConfig(
                source=f"folder:{source}", destination=str(tmp_path / "shards"), resize=8
            ),
            engine=EngineConfig(engine="inline"),
        )
    )
    assert made["images"] == {"train": 12, "test": 8, "validation": 5}
    config = DataConfig(data=f"shards:{tmp_path / 'shards'}", resize=4)
    found = open_data(resolve(config, cache=tmp_path / "cache"))
    assert found.shape[1:] == (4, 4)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 5, 8]


def test_a_training_chooses_on_it_and_says_so(
    configure: Callable[..., TrainConfig], image_folder: FolderMaker, tmp_path: Path
) -> None:
    notes: list[str] = []
    result = train(
        configure(
            data=f"folder:{image_folder(COUNTS)}", resize=8, batch_size=4, steps=6,
            evaluate_every=1.0, out=str(tmp_path / "run"),
        ),
        on_event=lambda event: notes.append(str(event.get("text"))),
    )  # fmt: skip
    assert "best_validation_accuracy" in result
    assert any("val is the validation part" in note for note in notes)
