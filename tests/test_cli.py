"""The command line: exit codes, what is said, and where."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sixfold.cli import COMMANDS, main
from sixfold.core.errors import RankFailure, RankLostError, UserError

QUICK = ["--data", "synthetic:200x3x8x8", "--model", "slide", "--batch-size", "40", "--steps", "6"]


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_no_words_and_help_list_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        assert main(words) == 0
        assert "train" in capsys.readouterr().out


def test_wrong_words_are_told_all_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--engine", "locl", "--model", "lenet6", "--data", "digts", "--fast"]
    assert main([*words, "--workers", "two", "--augment", "zoom", "--lr", "-1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    told = lines(captured.err)
    assert len(told) == 7
    assert all(line.startswith("sixfold: ") for line in told)
    text = captured.err
    for name in ("--fast", "locl", "lenet6", "digts", "'two'", "zoom", "--lr -1"):
        assert name in text


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["train", "--gpu", "--lr", "-1"], "unknown argument --gpu: give --device cuda "),
        (["plan", "--btach-size", "5"], "--btach-size 5: did you mean --batch-size?"),
        (["tickets", "--learning-rat=2"], "--learning-rat=2: did you mean --lr?"),
        (["profile", "--amp"], "--amp: give --precision bf16 "),
        (["evaluate", "--eval-every", "3"], "--eval-every (see"),
        (["sweep", "time", "--repeat", "2"], "--repeat 2: did you mean --repeats?"),
        (["sweep", "time", "--vary", "learning_rate=1"], "did you mean lr?"),
        (["lab", "matmul", "--second=2"], "--second=2: did you mean --seconds?"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_nobody_knows_leads_to_the_right_one(
    words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = lines(capsys.readouterr().err)
    assert what in told[0]
    assert len(told) == (2 if "-1" in words else 1)


def test_other_programs_names_of_options_are_understood(tmp_path: Path) -> None:
    words = ["train", "--dataset=synthetic:60x3x8x8", "--arch", "slide", "--batch_size", "20"]
    words += ["--num-steps", "2", "--learning-rate", "0.5", "--wd", "0.25", "--optim", "sgd"]
    words += ["--engine", "inline", "--num_workers", "2", "--output-dir", str(tmp_path / "run")]
    assert main(words) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["optimizer"]["lr"] == 0.5
    assert config["optimizer"]["weight_decay"] == 0.25
    assert config["training"]["batch_size"] == 20
    assert config["engine"]["workers"] == 2


def test_other_names_of_values_lead_to_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--device", "gpu", "--engine", "Spark", "--precision", "fp32"]
    assert main([*words, "--strategy", "ddp"]) == 2
    text = capsys.readouterr().err
    for name in ("cuda", "spark", "float32", "sync"):
        assert f"did you mean {name}?" in text


def test_numbers_beyond_all_bounds_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--engine", "inline", "--seed", str(1 << 63)]
    assert main([*words, "--epochs", "1e308"]) == 2
    epochs, seed = lines(capsys.readouterr().err)
    assert "--epochs 1e+308: must be above 0 and at most 1e+12" in epochs
    assert "--seed 9223372036854775808: must be at least 0 and below 2^63" in seed


def test_an_unknown_command_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/far/away"), "[Errno 13] Permission denied"),
        (KeyError("a\nb"), "a fault of Sixfold's own: KeyError: 'a\\nb' ("),
        (SystemError("odd"), "a fault of Sixfold's own: SystemError: odd ("),
    ],
)
def test_an_error_that_nobody_expected_is_one_line(
    error: Exception,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr("sixfold.cli._dispatch", fail)
    assert main(["models"]) == 1
    (line,) = lines(capsys.readouterr().err)
    assert line.startswith(f"sixfold: {told}")
    assert main(["models", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_shards_and_plans_where_nothing_can_be_written_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--workers", "1", "--engine", "inline"]
    assert main(["prepare", "synthetic:20x3x8x8", "/proc/shards", *words]) == 2
    assert main(["plan", *QUICK[:6], "--out", "/proc/plan", *words]) == 2
    for line in lines(capsys.readouterr().err):
        assert "/proc/" in line
        assert "cannot be written" in line


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["predict", "--out", "x.parquet"], "give the run to predict with"),
        (["predict", "nowhere", "--out", "x.parquet"], "there is no run"),
        (["prepare"], "give source and destination"),
        (["report"], "give the run directory"),
        (["report", "nowhere"], "is no run directory"),
        (["train", "--config", "none.toml"], "No such file"),
        (["train", "--resize", "28", "--out", "nosuch://bucket/run"], "Protocol not known"),
        (["train", "--data", "mnist:/nowhere"], "/nowhere"),
        (["train", "--workers", "100000"], "at most 512 on --engine inline"),
        (["train", "--model", "nowhere:net"], "nowhere"),
        (["train", "--data", "synthetic:50x1x16x16", "--batch-size", "51"], "has only 50 images"),
    ],
)
def test_wrong_input_is_exit_2_and_one_line(
    words: list[str],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = ["--engine", "inline"] if words[0] in ("train", "predict", "prepare") else []
    assert main([*words, *engine]) == 2
    told = lines(capsys.readouterr().err)
    assert len(told) == 1, told
    assert what in told[0]


def test_argument_wins_over_file_and_file_over_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[training]\nbatch_size = 50\nsteps = 4\n[optimizer]\nlr = 0.02\n")
    monkeypatch.setenv("SIXFOLD_LR", "0.03")
    monkeypatch.setenv("SIXFOLD_SEED", "7")
    out = tmp_path / "run"
    words = ["train", *QUICK, "--engine", "inline", "--config", str(file), "--out", str(out)]
    assert main(words) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["training"]["batch_size"] == 40
    assert config["training"]["steps"] == 6
    assert config["optimizer"]["lr"] == 0.02
    assert config["training"]["seed"] == 7


def test_mistakes_in_a_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[training]\nbatch_sise = 50\nsteps = 'many'\n[trainig]\n")
    assert main(["train", "--config", str(file)]) == 2
    text = capsys.readouterr().err
    assert "unknown setting 'batch_sise' in [training]: did you mean batch_size" in text
    assert "expected a whole number" in text
    assert "unknown section [trainig]" in text


def test_values_of_a_wrong_kind_and_settings_without_a_section_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    text = "batch_size = 50\n[run]\nsave_at_steps = 3\n[engine]\nspark_conf = {a = 1}\n[data]\n"
    file.write_text(text + "data = ['digits']\n")
    assert main(["train", "--config", str(file)]) == 2
    outside, value, conf = sorted(lines(capsys.readouterr().err))
    assert outside.endswith("'batch_size' lies outside of its section: write it below [training]")
    assert value.endswith("data.data ['digits']: expected text")
    assert conf.endswith("engine.spark_conf {'a': 1}: expected a list")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--lr", "x", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_train_then_predict_then_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", *QUICK, "--engine", "inline", "--workers", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert f"test accuracy      {result['test_accuracy']:.2%}" in printed
    assert str(out / "report.html") in printed
    file = tmp_path / "scores.parquet"
    words = ["predict", str(out), "--data", "synthetic:200x3x8x8", "--out", str(file)]
    assert main([*words, "--engine", "inline", "--workers", "3"]) == 0
    figures = json.loads((tmp_path / "scores.parquet.json").read_text())
    assert figures["accuracy"] == result["test_accuracy"]
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").is_file()


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """A long training in a process of its own."""
    words = ["train", "--data", "synthetic:500x3x16x16", "--model", "slide", "--batch-size", "50"]
    words += ["--steps", "100000", "--workers", "2", "--out", str(out), "--checkpoint-every", "20"]
    return subprocess.Popen(
        [sys.executable, "-m", "sixfold", *words, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(out: Path, process: subprocess.Popen[str]) -> None:
    """Return once a checkpoint has been written."""
    deadline = time.monotonic() + 60
    while not list((out / "checkpoints").glob("step-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.05)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return found


def assert_gone(processes: list[psutil.Process], within_s: float = 10) -> None:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that compute: grandchildren of the launcher, by the fork server."""
    server = psutil.Process(process.pid).children()[0]
    ranks: list[psutil.Process] = server.children()
    assert len(ranks) == 2
    return ranks


@pytest.mark.full
def test_a_killed_rank_without_which_nothing_goes_on_ends_the_run_with_its_facts(
    tmp_path: Path,
) -> None:
    process = start(tmp_path / "run", "--workers", "2:2", "--max-restarts", "0")
    wait_for_steps(tmp_path / "run", process)
    everyone = family(process)
    begin = time.monotonic()
    os.kill(ranks_of(process)[1].pid, signal.SIGKILL)
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode == 1
    assert "rank" in told
    assert "SIGKILL" in told
    assert "Traceback" not in told
    assert_gone(everyone)
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)],
    ids=lambda n: n.name,
)
def test_ctrl_c_stops_all_ranks_and_keeps_a_checkpoint(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path / "run")
    wait_for_steps(tmp_path / "run", process)
    everyone = family(process)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume" in told
    assert "Traceback" not in told
    assert_gone(everyone)


@pytest.mark.full
def test_ranks_end_when_the_launcher_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    wait_for_steps(tmp_path / "run", process)
    everyone = family(process)
    process.kill()
    process.communicate(timeout=30)
    assert_gone(everyone)


@pytest.mark.full
def test_a_run_killed_as_a_whole_resumes_to_the_same_hash(tmp_path: Path) -> None:
    words = ["--steps", "60", "--momentum", "0.5"]
    whole = start(tmp_path / "whole", *words)
    whole.communicate(timeout=100)
    process = start(tmp_path / "run", *words, "--checkpoint-every", "7")
    wait_for_steps(tmp_path / "run", process)
    for victim in [*family(process), psutil.Process(process.pid)]:
        victim.kill()
    process.communicate(timeout=30)
    resumed = start(tmp_path / "run", *words, "--resume", "--workers", "1")
    _, told = resumed.communicate(timeout=100)
    assert resumed.returncode == 0, told
    hashes = {
        json.loads((tmp_path / name / "result.json").read_text())["weights_sha256"]
        for name in ("whole", "run")
    }
    assert len(hashes) == 1


def test_a_run_can_be_resumed_and_trained_on_by_its_directory_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    begun = [
        "train", "--data", "synthetic:60x1x8x8", "--model", "slide", "--batch-size", "20",
        "--seed", "3", "--epochs", "1", "--engine", "inline", "--workers", "1", "--out", out,
    ]  # fmt: skip
    assert main(begun) == 0
    (tmp_path / "run" / "result.json").unlink()
    assert main(["train", "--resume", "--out", out]) == 0
    assert "steps, epochs      3, 1" in capsys.readouterr().out
    assert main(["train", "--resume", "--out", out, "--steps", "5"]) == 0
    assert "steps, epochs      5, " in capsys.readouterr().out


@pytest.mark.parametrize("library", [False, True])
def test_memory_that_cannot_be_had_is_a_failure_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: bool
) -> None:
    def fail(*_: object) -> int:
        if library:
            raise ImportError("libtorch_cpu.so: failed to map segment from shared object")
        try:
            raise SystemError("error return without exception set")
        except SystemError as error:
            raise UserError("the network raised SystemError") from error

    monkeypatch.setattr("sixfold.models.command.run", fail)
    assert main(["models"]) == 1
    assert "there is not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "last", ["MemoryError", "MemoryError: ", "RuntimeError: can't start new thread"]
)
def test_a_rank_that_died_for_want_of_memory_is_told_as_that(
    last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it could report anything itself: its log says so."""

    def fail(*_: object) -> int:
        log = ("Traceback (most recent call last):", "    import torch", last)
        failure = RankFailure(rank=0, host="here", cause="exited with status 1", log_tail=log)
        raise RankLostError(failure)

    monkeypatch.setattr("sixfold.models.command.run", fail)
    assert main(["models"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sixfold: there is not enough memory")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("command", "advises"), [("models", False), ("train", True)])
def test_ctrl_c_advises_resuming_only_where_that_can_be(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    advises: bool,
) -> None:
    def stop(*_: object) -> int:
        logging.exception("KeyboardInterrupt while sending command.")  # as py4j does
        logging.getLogger("py4j.clientserver").exception("while shutting down connection")
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{COMMANDS[command].package}.command.run", stop)
    assert main([command]) == 130
    told = capsys.readouterr().err
    assert ("--resume" in told) == advises
    assert "while" not in told


def test_a_clean_up_that_fails_after_ctrl_c_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> int:
        try:
            raise KeyboardInterrupt
        finally:
            raise ConnectionError("Answer from Java side is empty")

    monkeypatch.setattr("sixfold.models.command.run", stop)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "sixfold: stopped\n"


@pytest.mark.full
def test_a_set_of_texts_has_one_order_in_every_process_and_on_every_engine(tmp_path: Path) -> None:
    (tmp_path / "texts.py").write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        factor = 1.0\n"
        "        for text in {'ab', 'cd', 'ef', 'gh', str(len(x.shape))}:\n"
        "            factor = factor / 2 + ord(text[0])\n"
        "        return super().forward(x) * factor / 100\n\n\n"
        "def net():\n"
        "    return Net(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    found = set()
    for number, engine in enumerate(("inline", "inline", "inline", "local")):
        words = ["train", "--data", "digits", "--model", "texts:net", "--steps", "2"]
        words += ["--engine", engine, "--out", str(tmp_path / str(number))]
        subprocess.run(
            [sys.executable, "-m", "sixfold", *words], cwd=tmp_path, env=environ, check=True
        )
        result = json.loads((tmp_path / str(number) / "result.json").read_text())
        found.add(result["weights_sha256"])
    assert len(found) == 1
