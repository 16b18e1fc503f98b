"""Every command that reads a run says in a line what is damaged, and never believes it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.marks import some

from sixfold.cli import main
from sixfold.core.run_directory import read_json
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

TRAIN = [
    "train", "--data", "synthetic:200x3x8x8", "--model", "slide", "--lr", "0.01", "--steps", "3",
    "--batch-size", "40", "--evaluate-every", "0", "--engine", "inline", "--workers", "1",
    "--out", "run",
]  # fmt: skip
COMMANDS = {
    "train": TRAIN,
    "resume": ["train", "--resume", "--out", "run", "--engine", "inline", "--workers", "1"],
    "predict": ["predict", "run", "--data", "synthetic:20x3x8x8", "--out", "p.parquet",
                "--engine", "inline"],
    "evaluate": ["evaluate", "run", "--noise", "0.1", "--downsample", "", "--blur", "",
                 "--rotate", "", "--barrel", "", "--elastic", "", "--max-images", "10",
                 "--engine", "inline", "--out", "robust"],
    "compress": ["compress", "run", "--sparsity", "0.5", "--rounds", "1", "--prune-epochs", "0.2",
                 "--share-epochs", "0.2", "--engine", "inline", "--out", "small"],
    "report": ["report", "run"],
    "profile": ["profile", "run"],
}  # fmt: skip
FILES = ("config.json", "inputs.json", "result.json")


def mutations(data: bytes) -> dict[str, bytes]:
    """A file changed in some ways: bits, lengths, and what is JSON but no run's."""
    draw = np.random.default_rng(len(data))
    found = {}
    for place in draw.integers(0, len(data), 6).tolist():
        changed = bytearray(data)
        changed[place] ^= 1 << int(draw.integers(0, 7))
        found[f"bit at {place}"] = bytes(changed)
    digits = [place for place, byte in enumerate(data) if byte in b"0123456789"]
    for place in draw.choice(digits, 2).tolist():
        changed = bytearray(data)
        changed[place] = ord("1") if data[place] != ord("1") else ord("2")
        found[f"digit at {place}"] = bytes(changed)
    found |= {f"first {part:.0%}": data[: int(part * len(data))] for part in (0.0, 0.3, 0.95)}
    plain = json.loads(data)
    nothing = dict.fromkeys(plain)
    found |= {
        "list": b"[1, 2]",
        "text": b'"x"',
        "none": b"{}",
        "nulls": json.dumps(nothing).encode(),
    }
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(TRAIN) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("command", "file"),
    some([(command, file) for command in COMMANDS for file in FILES], 4, rows=True),
)
def test_damage_is_told_in_a_line_or_changes_nothing(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    file: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = read_json(run / "result.json") or {}
    kinds = mutations((run / file).read_bytes())
    if command in ("evaluate", "compress"):  # which take a second each
        kinds = dict(list(kinds.items())[3:11:2])
    for name, data in kinds.items():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        for out in ("robust", "small"):
            shutil.rmtree(tmp_path / out, ignore_errors=True)
        shutil.copytree(run, tmp_path / "run")
        (tmp_path / "run" / file).write_bytes(data)
        capsys.readouterr()
        status = main(COMMANDS[command])
        heard = capsys.readouterr()
        assert status in (0, 2), (name, heard.err)
        assert "Traceback" not in heard.err, name
        lines = [line for line in heard.err.splitlines() if line.startswith("sixfold:")]
        assert bool(lines) == (status == 2), (name, heard.err)
        if status == 0 and command in ("train", "resume"):
            assert whole["weights_sha256"] in heard.out, name
            assert f"{whole['test_accuracy']:.2%}" in heard.out, name
        if status == 0 and command == "predict":
            assert pq.read_table("p.parquet").num_rows == 10  # the test part
        if (
            name.startswith("digit")
            and file == "config.json"
            and command in ("evaluate", "compress")
        ):
            assert status == 2, name


@pytest.mark.parametrize("content", ["", "{", "[]", '{"dictionary": 3}', "\0\0", '{"data": {}}'])
@pytest.mark.parametrize("file", [*FILES, "attempt"])
@pytest.mark.parametrize(
    "command",
    [
        ["lca", "learn", "--data", "digits", "--engine", "inline", "--max-images", "10"],
        ["sweep", "delay", "--master", "local[1]"],
        ["sweep", "quality", "--data", "digits", "--model", "lenet300", "--vary", "lr=0.1"],
        ["tickets", "--data", "digits", "--model", "lenet300", "--engine", "inline"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_strange_run_directory_is_refused_in_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    file: str,
    content: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / file).write_text(content)
    assert main([*command, "--out", "run"]) == 2
    heard = capsys.readouterr()
    assert "Traceback" not in heard.err
    assert heard.err.startswith("sixfold: ") or "\nsixfold: " in heard.err
    assert (tmp_path / "run" / file).read_text() == content


def test_a_place_that_is_no_directory_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").write_text("a file")
    for command in (["lca", "learn", "--data", "digits"], ["sweep", "delay", "--master", "local"]):
        assert main([*command, "--out", "run"]) == 2
        heard = capsys.readouterr().err
        assert "Traceback" not in heard
        assert "run" in heard
    assert (tmp_path / "run").read_text() == "a file"


def test_a_job_makes_a_damaged_record_again(
    configure: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["sweep", "quality", "--data", "digits", "--model", "lenet300", "--steps", "2",
               "--vary", "lr=0.1,0.2", "--engine", "inline", "--out", "sweep"]  # fmt: skip
    assert main(command) == 0
    first = read_json(Path("sweep/result.json")) or {}
    record = next(Path("sweep/members").glob("*/result.json"))
    text = record.read_text()
    place = text.index('"accuracy": 0.') + len('"accuracy": 0.')
    record.write_text(f"{text[:place]}{'9' if text[place] != '9' else '8'}{text[place + 1 :]}")
    Path("sweep/result.json").unlink()
    assert main([*command, "--resume"]) == 0
    again = read_json(Path("sweep/result.json")) or {}
    assert (first["done_before"], again["done_before"]) == (0, 1)
    accuracies = [[row["test_accuracy"] for row in one["trainings"]] for one in (first, again)]
    assert accuracies[0] == accuracies[1]
    assert train(configure(steps=1, out="other"))["steps"] == 1
