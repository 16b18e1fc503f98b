"""The configuration's table."""

from __future__ import annotations

import pytest

from sixfold.core.html.settings import setting_sections, show
from sixfold.core.run_directory import as_json
from sixfold.distributed.config import EngineConfig
from sixfold.training.config import TrainConfig


def test_defaults_are_not_marked_and_changes_are() -> None:
    sections = setting_sections(as_json(TrainConfig()), TrainConfig)
    assert next(name for name, _ in sections) == "data"
    assert not [row.name for _, rows in sections for row in rows if row.changed]
    engine = EngineConfig(engine="spark", spark_conf=("a=b",))
    rows = dict(setting_sections(as_json(TrainConfig(engine=engine)), TrainConfig))["engine"]
    changed = {row.name: row for row in rows if row.changed}
    assert set(changed) == {"--engine", "--spark-conf"}
    assert changed["--engine"].default == "local"
    assert changed["--engine"].doc


def test_unknown_sections_and_settings_are_shown() -> None:
    (name, rows), *_ = setting_sections({"future": {"new_thing": 3}}, TrainConfig)
    assert (name, rows[0].name, rows[0].value, rows[0].changed) == (
        "future", "--new-thing", "3", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("spark.hadoop.fs.s3a.secret.key=AKIA", "AKIA"),
        ("spark.hadoop.fs.s3a.access.key=AKIA", "AKIA"),
        ("spark.authenticate.secret=abc", "abc"),
        ("spark.ssl.keyStorePassword=pw1", "pw1"),
        ("x.auth_token=t0p", "t0p"),
        ("https://user:pw1@host/x", "pw1"),
    ],
)
def test_secrets_are_hidden_in_lists_and_alone(value: str, secret: str) -> None:
    assert secret not in show(value)
    assert secret not in show([value, "a=b"])


def test_other_values_stay() -> None:
    assert show("spark.executor.memory=2g") == "spark.executor.memory=2g"
    assert show(0.05) == "0.05"
    assert show([]) == "none"
