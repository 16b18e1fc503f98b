"""The schema of a command's settings says what the settings say."""

import dataclasses
import json
from pathlib import Path

import pytest

from sixfold.cli import main
from sixfold.core.console.schema import json_schema
from sixfold.core.settings import hints_of
from sixfold.lca.config import LcaLearnConfig
from sixfold.training.config import TrainConfig


def test_every_field_has_its_type_help_choices_and_bounds() -> None:
    schema = json_schema(TrainConfig)
    assert list(schema["properties"]) == list(hints_of(TrainConfig))
    optimizer = schema["$defs"]["OptimizerConfig"]
    assert optimizer["properties"]["momentum"] == {
        "default": 0.9,
        "description": "momentum of sgd and lars",
        "exclusiveMaximum": 1,
        "minimum": 0,
        "title": "Momentum",
        "type": "number",
    }
    assert schema["$defs"]["EngineConfig"]["properties"]["engine"]["enum"] == [
        "inline",
        "local",
        "spark",
    ]
    assert optimizer["additionalProperties"] is False
    for name, section in hints_of(TrainConfig).items():
        fields = [field.name for field in dataclasses.fields(section)]
        assert list(schema["$defs"][section.__name__]["properties"]) == fields, name


def test_a_keyword_of_python_is_written_without_its_underscore() -> None:
    assert "lambda" in json_schema(LcaLearnConfig)["$defs"]["DynamicsConfig"]["properties"]


def test_a_command_writes_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.schema.json"
    with pytest.raises(SystemExit) as left:
        main(["train", "--write-schema", str(file)])
    assert left.value.code in (0, None)
    assert json.loads(file.read_text())["title"] == "TrainConfig"
    assert main(["sweep", "time", "--write-schema", str(tmp_path / "no" / "file")]) == 2
    assert "--write-schema" in capsys.readouterr().err
