"""Runs of strangers do not make commands reach out."""

import json
from pathlib import Path

import pytest

from sixfold.cli import main
from sixfold.data.origin import note_given, origin_problems

URL = "folder:http://127.0.0.1:9/set"
TRAIN = [
    "train", "--data", "synthetic:200x3x8x8", "--model", "slide", "--steps", "2", "--batch-size",
    "40", "--lr", "0.01", "--engine", "inline", "--workers", "1", "--out", "run",
]  # fmt: skip


@pytest.fixture
def strange_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose settings name a URL."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    assert main(TRAIN) == 0
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["data"]["data"] = URL
    file.write_text(json.dumps(config))
    return file


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "run", "--engine", "inline"],
        ["compress", "run", "--engine", "inline"],
        ["train", "--resume", "--out", "run", "--engine", "inline"],
    ],
    ids=lambda words: words[0],
)
def test_a_url_that_only_the_run_names_is_not_opened(
    strange_run: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"config.json names the data {URL}, a URL that you have not given" in told
    assert len(told.splitlines()) == 1
    for words in ([*command, "--trust-model"], [*command, "--data", URL]):
        assert main(words) in (1, 2)
        told = capsys.readouterr().err
        assert "that you have not given" not in told
        assert "Traceback" not in told


def test_what_the_user_has_given_is_known_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path))
    mine, other = "folder:s3://mine/set", "folder:s3://other/set"
    note_given(mine)
    monkeypatch.setattr("sixfold.data.origin._GIVEN", set())  # as in another process
    assert not origin_problems(mine, tmp_path)
    assert origin_problems(other, tmp_path)
    (told,) = origin_problems("hf:stranger/set", tmp_path)
    assert "hf:stranger/set, a data set of Hugging Face that you have not given" in told
    for local in ("digits", "folder:/data/set", "folder:file:///data/set", "cifar10:x"):
        note_given(local)
        assert not origin_problems(local, tmp_path)
    assert len(list((tmp_path / "urls").iterdir())) == 1
