"""A run goes on only where its arithmetic is that of its checkpoint, unless bits do not matter."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.training import checkpoint, same_bits
from sixfold.training.checkpoint import list_checkpoints
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.step.arithmetic import arithmetic

Configure = Callable[..., TrainConfig]


def stop_half_way(configure: Configure, out: Path, **changes: Any) -> None:
    train(configure(out=str(out), checkpoint_every=3, **changes))
    (out / "result.json").unlink()
    list_checkpoints(out / "checkpoints")[-1].unlink()


def move_to(patch: pytest.MonkeyPatch, **other: str) -> None:
    for module in (checkpoint, same_bits):
        patch.setattr(module, "arithmetic", lambda: arithmetic() | other)


@pytest.mark.parametrize(
    "changes",
    [{}, {"strategy": "local_sgd", "local_steps": 3}, {"strategy": "model_parallel", "workers": 2}],
)
def test_a_resume_under_another_arithmetic_is_refused(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    stop_half_way(configure, tmp_path, **changes)
    with monkeypatch.context() as patch:
        move_to(patch, aten="VSX")
        expected = r"other arithmetic: aten \w+, here VSX \(set ATEN_CPU_CAPABILITY=\w+\)"
        with pytest.raises(UserError, match=expected) as caught:
            train(configure(out=str(tmp_path), checkpoint_every=3, resume=True, **changes))
        assert len(caught.value.problems) == 1
    found = train(configure(out=str(tmp_path), checkpoint_every=3, resume=True, **changes))
    assert found["arithmetic"] == arithmetic()


def test_bits_that_do_not_matter_allow_it(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_half_way(configure, tmp_path)
    move_to(monkeypatch, torch="0.1")
    settings = {"out": str(tmp_path), "checkpoint_every": 3, "resume": True}
    found = train(configure(deterministic=False, **settings))
    assert found["arithmetic"]["torch"] == "0.1"
    (tmp_path / "result.json").unlink()
    with pytest.raises(UserError, match="--deterministic: False -> True"):
        train(configure(deterministic=True, **settings))


def test_ranks_that_differ_are_told_in_one_line(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["here", "here", "there", "there"])
    move_to(monkeypatch)
    monkeypatch.setattr(same_bits, "arithmetic", lambda: {"variables": next(names)})
    notes: list[str] = []
    found = train(
        configure(out=str(tmp_path), workers=4),
        on_event=lambda event: notes.append(str(event.get("text"))),
    )
    told = [note for note in notes if "computes otherwise" in note]
    assert len(told) == 1
    # Which ranks ask first is not settled.
    line = r"rank \d computes otherwise than rank 0, yet the same bits in a trial: variables \w+, "
    assert re.match(line, told[0])
    assert told[0].endswith("(set the environment variables as before)")
    assert len(found["arithmetic_by_rank"]) == 4
