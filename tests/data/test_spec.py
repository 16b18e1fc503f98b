import re
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.data.spec import FORMS, absolute_spec, parse_spec


def test_a_spec_means_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_spec("folder:pets") == f"folder:{tmp_path}/pets"
    assert absolute_spec("folder:s3://bucket/pets") == "folder:s3://bucket/pets"
    assert absolute_spec("digits") == "digits"
    assert absolute_spec("synthetic:10x1x2x2") == "synthetic:10x1x2x2"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cifar", "did you mean cifar10:PATH?"),
        ("minst:/data", "did you mean mnist:DIR?"),
        ("/data/pets", "unknown kind '/data/pets': expected digits, mnist:DIR"),
        ("", "unknown kind ''"),
        ("folder", "expected folder:PATH"),
        ("folder:", "expected folder:PATH"),
        ("synthetic", "expected synthetic:NxCxHxW"),
        ("digits:3", "digits takes nothing after it"),
    ],
)
def test_wrong_specs_are_explained(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        parse_spec(text)


def test_every_kind_is_in_the_help() -> None:
    from sixfold.data.config import DataConfig

    field = DataConfig.__dataclass_fields__["data"]
    trainable = [form for kind, form in FORMS.items() if kind != "images"]
    assert all(form in field.metadata["doc"] for form in trainable)
