"""Event files, read back by TensorBoard's own reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.run_directory import read_json_lines
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

pytest.importorskip("tensorboard", reason="needs the extra track")

Configure = Callable[..., TrainConfig]


def read(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return found.Reload()


def test_scalars_and_settings(configure: Configure, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    run = tmp_path / "run"
    settings = {"validation": 0.2, "evaluate_every": 1.0, "steps": 8}
    result = train(configure(**settings, out=str(run), track="tensorboard", workers=2))
    events = read(run)
    lines = [line for line in read_json_lines(run / "metrics.jsonl") if "part" not in line]
    loss = events.Scalars("train/loss")
    assert [event.step for event in loss] == list(range(1, 9))
    assert [event.value for event in loss] == pytest.approx([line["loss"] for line in lines])
    assert [event.wall_time for event in loss] == [line["time"] for line in lines]
    assert [event.step for event in events.Scalars("validation/accuracy")] == [4, 8]
    (accuracy,) = events.Scalars("result/test_accuracy")
    assert (accuracy.step, accuracy.value) == (8, pytest.approx(result["test_accuracy"]))
    (text,) = events.Tensors("settings")
    assert b"| batch_size | 40 |" in text.tensor_proto.string_val[0]
    (text,) = events.Tensors("result")
    assert result["weights_sha256"].encode() in text.tensor_proto.string_val[0]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["lr"].number_value == 0.01
    assert start.hparams["model"].string_value == "slide"


def test_a_longer_run_goes_on_in_the_same_folder(configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = {"out": str(run), "track": "tensorboard"}
    train(configure(**own, steps=4))
    train(configure(**own, steps=6, resume=True, workers=2))
    assert len(list((run / "tensorboard").iterdir())) == 2
    events = read(run)
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("result/test_loss")] == [4, 6]


def test_a_full_disk_is_told_and_the_training_ends(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "flush", full)
    notes: list[Any] = []
    train(configure(out=str(tmp_path / "run"), track="tensorboard"), on_event=notes.append)
    told = [event["text"] for event in notes if "--track" in event.get("text", "")]
    assert 1 <= len(told) <= 2
    assert "No space left on device; not sent: metrics of steps 1 to 6, settings" in told[-1]
