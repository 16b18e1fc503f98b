"""Trainings whose run directory is a URL: the bits, the files and the messages of a local one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import sixfold
from sixfold.core import run_directory, run_store
from sixfold.core.errors import RunError, UserError
from sixfold.core.object_store import ObjectStore
from sixfold.core.output_file import checked_place, output_file, part_file
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]
URL = "memory://runs/train"


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    """Nothing in memory."""
    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


def names(url: str = URL) -> set[str]:
    """What a store holds of a run."""
    return {name for name in ObjectStore(url).list() if not name.startswith("attempts/")}


def test_a_run_at_a_url_has_the_bits_and_files_of_a_local_one(
    configure: Configure, tmp_path: Path
) -> None:
    local = train(configure(out=str(tmp_path / "run")))
    there = train(configure(out=URL))
    assert there["weights_sha256"] == local["weights_sha256"]
    assert there["report"] == f"{URL}/report.html"
    files = {p.relative_to(tmp_path / "run") for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert names() == {p.as_posix() for p in files} - {"attempt"}


def test_a_run_at_a_url_goes_on_and_is_found_finished(configure: Configure, tmp_path: Path) -> None:
    whole = train(configure(out=str(tmp_path / "run"), steps=9))
    train(configure(out=URL))
    grown = train(configure(out=URL, steps=9, resume=True))
    assert (grown["steps"], grown["weights_sha256"]) == (9, whole["weights_sha256"])
    heard: list[Any] = []
    again = train(configure(out=URL, steps=9), on_event=heard.append)
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert [event["text"] for event in heard] == [f"{URL} holds this run, finished"]
    with pytest.raises(UserError, match=rf"{URL} holds a run with other settings"):
        train(configure(out=URL, lr=0.5))
    with pytest.raises(UserError, match="there is no run memory://runs/none"):
        train(configure(out="memory://runs/none", resume=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_ranks_that_do_not_see_the_launchers_copy_have_their_own(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    options = {"checkpoint_every": 2, "save_at_steps": ("3",), "workers": workers}
    local = train(configure(out=str(tmp_path / "run"), **options))
    monkeypatch.setattr(run_directory.Claim, "is_apart", lambda claim: bool(claim.url))
    there = train(configure(out=URL, **options))
    assert there["weights_sha256"] == local["weights_sha256"]
    assert {"metrics.jsonl", "model.safetensors", "snapshots/step-000000003.safetensors"} <= names()
    assert f"timeline/rank-000{workers - 1}.jsonl" in names()
    grown = train(configure(out=URL, **options, steps=9, resume=True))
    whole = train(configure(out=str(tmp_path / "run"), **options, steps=9, resume=True))
    assert grown["weights_sha256"] == whole["weights_sha256"]


def test_other_commands_read_a_run_at_a_url(tmp_path: Path, configure: Configure) -> None:
    figures = train(configure(out=URL))
    assert sixfold.open_run(URL).weights_sha256 == figures["weights_sha256"]
    sixfold.load(URL)
    data, out = "synthetic:200x3x8x8", tmp_path / "scores.parquet"
    told = sixfold.predict(URL, data, out, engine="inline", workers=1, quiet=True)
    assert told["accuracy"] == figures["test_accuracy"]
    there = "memory://runs/scores.parquet"
    again = sixfold.predict(URL, data, there, engine="inline", workers=2, quiet=True)
    assert again["file"] == there
    files = ObjectStore("memory://runs")
    assert files.read("scores.parquet") == out.read_bytes()
    assert json.loads(files.read("scores.parquet.json") or b"")["accuracy"] == told["accuracy"]
    assert {name for name in files.list() if name.startswith("scores")} == {
        *("scores.parquet", "scores.parquet.json"),
    }
    for place, why in (("memory://runs/", "give the URL of a file"), ("no://a/b", "Protocol")):
        with pytest.raises(UserError, match=why):
            sixfold.predict(URL, data, place, engine="inline", workers=1, quiet=True)
    with pytest.raises(UserError, match="is a URL: give --out"):
        sixfold.evaluate_robustness(URL, engine="inline", workers=1, quiet=True)


def test_parts_of_a_prediction_go_by_the_store_where_ranks_are_on_other_hosts(
    tmp_path: Path,
) -> None:
    place = "memory://runs/all.bin"
    with output_file(place, apart=True) as out:
        for rank in range(2):
            with part_file(out.parts, f"part-{rank}") as part:
                part.write_text(str(rank))
        folder = out.collected()
        out.path.write_text("".join(p.read_text() for p in sorted(folder.iterdir())))
        out.path.with_name("all.bin.json").write_text("{}")
        out.publish()
    assert ObjectStore("memory://runs").list().keys() == {"all.bin", "all.bin.json"}
    assert ObjectStore("memory://runs").read("all.bin") == b"01"
    with output_file(checked_place(str(tmp_path / "all.bin")), apart=True) as out:
        assert Path(out.parts).is_dir()


def test_a_compression_goes_to_a_url_as_to_a_directory(
    configure: Configure, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {"engine": "inline", "workers": 1, "quiet": True}
    train(configure(out=str(run), model="slide"))
    stages: Any = {"sparsity": "0.5", "rounds": 1, "prune_epochs": 0.2, "share_epochs": 0.2}
    local = sixfold.compress(str(run), out=str(tmp_path / "small"), **stages, **options)
    there = sixfold.compress(str(run), out=URL, **stages, **options)
    assert there["stages"] == local["stages"]
    assert there["report"] == f"{URL}/report.html"
    copied = ObjectStore(URL).read("model.sixz")
    assert copied == (tmp_path / "small" / "model.sixz").read_bytes()
    assert sixfold.compress(str(run), out=URL, **stages, **options)["stages"] == local["stages"]


def test_a_superseded_training_stops_at_its_next_checkpoint(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = run_store.RunStore.fence

    def overtaken(store: run_store.RunStore) -> None:
        if any(name.endswith("metrics.jsonl") for name in names()):
            store.store.create(f"attempts/{store.newest() + 1:06d}.json", b"{}")
        save(store)

    monkeypatch.setattr(run_store, "PUBLISH_S", 0.01)
    monkeypatch.setattr(run_store.RunStore, "fence", overtaken)
    with pytest.raises(RunError, match="superseded by attempt"):
        train(configure(out=URL, steps=400, checkpoint_every=1))
    assert "result.json" not in names()


def test_an_object_of_no_module_is_refused(configure: Configure) -> None:
    with pytest.raises(
        UserError, match="is defined in no module, and a run at a URL keeps no code"
    ):
        sixfold.train(lambda: None, "digits", out=URL, quiet=True)
    assert not names()


def test_a_cluster_needs_a_mounted_directory_for_other_commands() -> None:
    options: dict[str, Any] = {"engine": "spark", "workers": 1, "out": URL, "quiet": True}
    with pytest.raises(UserError, match="on a cluster this search needs a directory that all"):
        sixfold.tune("slide", "digits", search={"lr": [0.1, 0.2]}, master="spark://h:1", **options)


@pytest.mark.full
def test_ranks_that_learn_a_dictionary_have_copies_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"engine": "inline", "workers": 2, "atoms": 4, "batch_size": 4}
    options |= {"data": "synthetic:20x1x8x8", "kernel": "3x3", "steps": 4, "quiet": True}
    local = sixfold.lca_learn(out=str(tmp_path / "run"), checkpoint_every=2, **options)
    monkeypatch.setattr(run_directory.Claim, "is_apart", lambda claim: bool(claim.url))
    there = sixfold.lca_learn(out=URL, checkpoint_every=2, **options)
    assert there["dictionary_sha256"] == local["dictionary_sha256"]
    assert "dictionary.safetensors" in names()
    assert len([name for name in names() if name.startswith("checkpoints/")]) == 2


ARGUMENTS = (
    *("train", "--data", "synthetic:400x3x8x8", "--model", "slide", "--lr", "0.01"),
    *("--batch-size", "40", "--workers", "2", "--checkpoint-every", "5", "--evaluate-every", "0"),
)


def command(*arguments: str) -> "subprocess.Popen[str]":
    """`sixfold` in a process of its own."""
    words = [sys.executable, "-m", "sixfold", *ARGUMENTS, *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_on_s3_a_killed_training_goes_on_to_the_same_bits(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/killed"
    first = command("--steps", "4000", "--out", url)
    try:
        until = time.monotonic() + 240
        while not any(name.startswith("checkpoints/step-") for name in names(url)):
            assert time.monotonic() < until
            assert first.poll() is None
            time.sleep(0.5)
        second = command("--steps", "4000", "--out", url)
        told, _ = second.communicate(timeout=240)
        assert second.returncode == 2
        assert f"{url} is in use by process {first.pid}" in told
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert first.stdout is not None
        first.stdout.close()
    steps = max(int(n[17:26]) for n in names(url) if n.startswith("checkpoints/step-")) + 20
    third = command("--steps", str(steps), "--out", url, "--resume")
    told, _ = third.communicate(timeout=240)
    assert third.returncode == 0, told
    local = command("--steps", str(steps), "--out", str(tmp_path / "run"))
    local.communicate(timeout=240)
    found = sixfold.open_run(url)
    assert found.weights_sha256 == sixfold.open_run(tmp_path / "run").weights_sha256
    out = tmp_path / "scores.parquet"
    scored = sixfold.predict(
        url, "synthetic:400x3x8x8", out, engine="inline", workers=1, quiet=True
    )
    assert scored["accuracy"] == found.test_accuracy


@pytest.mark.full
def test_on_s3_what_is_wrong_is_one_line(
    bucket: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"--out s3://no-such-bucket/run: there is no such bucket"):
        train(configure(out="s3://no-such-bucket/run"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UserError, match="the store does not answer as it should") as error:
        train(configure(out=f"{bucket}/run"))
    assert "\n" not in str(error.value)
