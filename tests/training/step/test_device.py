"""Which device a rank computes on, what is refused, and what is settled for GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sixfold.cli import main
from sixfold.distributed.config import EngineConfig
from sixfold.training.config import ComputeConfig, StrategyConfig, TrainConfig, TrainingConfig
from sixfold.training.step.device import device_problems, rank_device, settle_arithmetic


def test_gpus_are_dealt_out_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    found = [rank_device("cuda", rank) for rank in range(5)]
    assert [str(device) for device in found] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert rank_device("cpu", 4) is None


def test_what_is_missing_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_problems("cpu") == []
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    (line,) = device_problems("cuda")
    assert "was built without CUDA; install" in line
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (line,) = device_problems("cuda")
    assert "no GPU is visible" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU on this machine")
def test_without_a_gpu_the_command_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--device", "cuda", "--engine", "inline", "--resize", "28"]
    assert main([*words, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--device cuda: " in line
    assert not out.exists()


CASES: list[tuple[dict[str, Any], str]] = [
    ({"strategy": StrategyConfig(strategy="hogwild")}, "only with --strategy sync, not hogwild"),
    ({"strategy": StrategyConfig(strategy="auto")}, "only with --strategy sync, not auto"),
    ({"engine": EngineConfig(engine="spark")}, "only with --engine local or inline, not spark"),
    ({"training": TrainingConfig(batch_norm="sync")}, "not with --batch-norm sync"),
    ({"compute": ComputeConfig(device="cuda", micro_batch="8")}, "not with --micro-batch 8"),
    ({"compute": ComputeConfig(device="cuda", tuning="file")}, "not with --tuning"),
]


@pytest.mark.parametrize(("changes", "said"), CASES)
def test_what_gpus_do_not_do_is_refused(changes: dict[str, Any], said: str) -> None:
    config = TrainConfig(**{"compute": ComputeConfig(device="cuda"), **changes})
    assert [line for line in config.problems() if f"--device cuda: {said}" in line]


def test_tf32_is_of_gpus_alone() -> None:
    assert TrainConfig(compute=ComputeConfig(tf32=True)).problems() == [
        "--tf32: only for --device cuda"
    ]
    assert TrainConfig(compute=ComputeConfig(tf32=True, device="cuda")).problems() == []


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `settle_arithmetic` changes is changed back."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    backends = torch.backends
    places: list[tuple[Any, str]] = [
        (backends.cudnn, "benchmark"),
        (backends.cudnn, "deterministic"),
        (backends.cuda.matmul, "fp32_precision"),
        (backends.cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
        (torch.utils.deterministic, "fill_uninitialized_memory"),
    ]
    before = [getattr(place, name) for place, name in places]
    yield
    torch.use_deterministic_algorithms(False)
    for (place, name), value in zip(places, before, strict=True):
        setattr(place, name, value)


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("tf32", [False, True])
def test_arithmetic_is_settled(tf32: bool) -> None:
    settle_arithmetic(ComputeConfig(device="cuda", tf32=tf32), exact=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    wanted = "tf32" if tf32 else "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == wanted
    assert torch.backends.cudnn.conv.fp32_precision == wanted  # type: ignore[attr-defined]
