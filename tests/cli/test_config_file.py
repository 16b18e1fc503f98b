"""Whatever is said of a setting that a file gives names the file."""

from pathlib import Path

import pytest

from sixfold.cli import main

OPTIONS = ["--data", "synthetic:200x3x8x8", "--model", "slide", "--engine", "inline", "--workers",
           "1", "--out", "run"]  # fmt: skip


def write(lr: str, more: str = "") -> None:
    Path("mine.toml").write_text(f"[optimizer]\nlr = {lr}\n[training]\nsteps = 2\n{more}")


def test_a_settings_file_that_changed_since_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", *OPTIONS, "--config", "mine.toml"]
    write("0.01")
    assert main(command) == 0
    write("0.02")
    capsys.readouterr()
    for more in ([], ["--seed", "3"]):
        assert main([*command, *more]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert "sixfold: --lr: 0.01 -> 0.02 (in mine.toml)" in lines
        assert ("sixfold: --seed: 0 -> 3" in lines) == bool(more)
    assert main([*command, "--lr", "0.03"]) == 2
    assert "sixfold: --lr: 0.01 -> 0.03\n" in capsys.readouterr().err


def test_a_settings_file_that_cannot_be_read_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "none.toml"]) == 2
    assert capsys.readouterr().err == "sixfold: --config none.toml: No such file or directory\n"
    Path("none.toml").write_text("lr = ")
    assert main(["train", "--config", "none.toml"]) == 2
    assert capsys.readouterr().err.startswith("sixfold: --config none.toml: not valid TOML")


def test_a_wrong_value_in_a_settings_file_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write("-1", "batch_size = 0\n")
    assert main(["train", *OPTIONS, "--config", "mine.toml", "--seed", "-4"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert sum(line.endswith("(in mine.toml)") for line in lines) == 2
    (other,) = [line for line in lines if not line.endswith("(in mine.toml)")]
    assert "--seed" in other


def test_misspelt_names_are_told_where_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIXFOLD_LEARNING_RATE", "0.1")
    monkeypatch.setenv("SIXFOLD_ATOMS", "100")  # of another command
    Path("mine.toml").write_text("lrr = 1\nlr = 1\n[Optimizer]\nlr = 1\n[else]\nlr = 1\n")
    assert main(["train", *OPTIONS, "--config", "mine.toml"]) == 2
    said = capsys.readouterr().err
    assert "warning: SIXFOLD_LEARNING_RATE is no setting of this command: did you mean SIX" in said
    assert "ATOMS" not in said
    for line in (
        "unknown setting 'lrr' outside of all sections: did you mean lr?",
        "'lr' lies outside of its section: write it below [optimizer]",
        "unknown section [Optimizer]: did you mean [optimizer]?",
        "unknown section [else]; known: data, ",
    ):
        assert f"sixfold: mine.toml: {line}" in said
