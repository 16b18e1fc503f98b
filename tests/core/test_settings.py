"""Settings given from Python are checked like options."""

import dataclasses
import importlib
import math
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sixfold
from sixfold.core.errors import UserError
from sixfold.core.settings import Settings, option
from sixfold.distributed.config import EngineConfig
from sixfold.training.config import TrainConfig, TrainingConfig


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(UserError) as refused:
        sixfold.configure(
            deterministic="perhaps",
            workers=2.5,
            batch_size="many",
            lr=[1],
            learning_rate=1,
            model=None,
        )
    assert set(refused.value.problems) == {
        "deterministic='perhaps': expected true or false",
        "workers=2.5: expected a whole number",
        "batch_size='many': expected a whole number",
        "lr=[1]: expected a number",
        "model=None: expected text (a network of the zoo (`sixfold models`) or your own: "
        "package.module:factory)",
        "there is no setting 'learning_rate': did you mean lr?",
    }


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"deterministic": "false"}, False),
        ({"deterministic": np.False_}, False),
        ({"batch_size": "64"}, 64),
        ({"batch_size": np.int64(64)}, 64),
        ({"lr": np.float32(0.5)}, 0.5),
        ({"out": Path("runs")}, "runs"),
        ({"save_at_steps": range(2)}, ("0", "1")),
        ({"steps": None}, None),
    ],
)
def test_what_can_be_read_as_the_right_type_is(given: dict[str, Any], read: Any) -> None:
    config = sixfold.configure(**given)
    (name,) = given
    values = [
        getattr(part, name)
        for part in (getattr(config, field.name) for field in dataclasses.fields(config))
        if hasattr(part, name)
    ]
    assert values == [read]
    assert type(values[0]) is type(read)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (TrainingConfig, {"batch_size": True}),
        (TrainingConfig, {"batch_size": 64.0}),
        (TrainingConfig, {"batch_size": np.float32(2.5)}),
        (EngineConfig, {"spark_conf": {"a": "b"}}),
        (TrainConfig, {"training": {"batch_size": 64}}),
    ],
)
def test_a_section_is_checked_where_it_is_made(section: type[Any], values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"^{next(iter(values))}="):
        section(**values)


def test_all_settings_are_checked() -> None:
    """Every class with documented fields, wherever it is."""
    found = 0
    for module in pkgutil.walk_packages(sixfold.__path__, "sixfold."):
        if not module.name.endswith(".config"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if dataclasses.is_dataclass(value) and "doc" in str(value.__dataclass_fields__):
                found += 1
                assert issubclass(value, Settings), value  # type: ignore[arg-type]
    assert found > 20


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (0.0, "must be above 0 and at most 1"),
        (1.5, "must be above 0 and at most 1"),
        (math.nan, "must be above 0 and at most 1"),
        (math.inf, "must be above 0 and at most 1 and finite"),
        (1.0, None),
    ],
)
def test_bounds_are_declared_at_the_field(value: float, rule: str | None) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Section(Settings):
        some_part: float = option(1.0, "a part", gt=0, le=1)

    assert Section(some_part=value).problems() == ([f"--some-part {value}: {rule}"] if rule else [])


@pytest.mark.parametrize("out", ["", " ", "/", "s3://", "gs:///"])
def test_a_place_without_a_name_is_none(out: str) -> None:
    with pytest.raises(UserError, match="names no place"):
        sixfold.configure(out=out)


def test_all_sections_and_what_they_have_to_do_with_each_other_are_told_together() -> None:
    wrong = {"lr": -1, "steps": 0, "epochs": 1, "resume": True, "overwrite": True, "engine": "gpu"}
    with pytest.raises(sixfold.UserError) as refused:
        sixfold.configure(**wrong, batchsize=3)
    assert list(refused.value.problems) == [
        "there is no setting 'batchsize': did you mean batch_size?",
        "--lr -1.0: must be at least 0",
        "--steps 0: must be at least 1 and at most 1e+12",
        "--engine gpu: unknown engine 'gpu' (known: inline, local, spark)",
        "--resume and --overwrite exclude each other: give one",
        "--epochs and --steps exclude each other: give one",
    ]


def test_a_run_that_is_resumed_has_its_own_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"training": {"batch_size": 7, "epochs": 3.0, "seed": 5}, "engine": {"workers": 2}}'
    )
    config = sixfold.configure(out=str(tmp_path), resume=True, seed=6, steps=9)
    assert config.training == TrainingConfig(batch_size=7, seed=6, steps=9)
    assert config.engine.workers == 2
    assert sixfold.configure(out=str(tmp_path)).training == TrainingConfig()
