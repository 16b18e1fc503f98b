"""What decides a processor's bits is recorded in words, and differences are told with a remedy."""

import os
import subprocess
import sys

import pytest
import torch

from sixfold.core.environment import arithmetic_variables
from sixfold.training.step.arithmetic import arithmetic, arithmetic_difference


def test_it_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = arithmetic()
    assert found["torch"] == torch.__version__
    assert found["variables"] == " ".join(f"{k}={v}" for k, v in arithmetic_variables().items())
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in found["variables"]
    assert all(found.values())
    assert arithmetic_difference(found, found) is None


def test_another_instruction_set_of_aten_is_seen() -> None:
    code = "from sixfold.training.step.arithmetic import arithmetic as a; print(a()['aten'])"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "DEFAULT"


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("torch", "2.1", "2.2", "torch 2.1, here 2.2 (install torch==2.1)"),
        ("aten", "AVX2", "AVX512", "aten AVX2, here AVX512 (set ATEN_CPU_CAPABILITY=avx2)"),
        (
            "variables",
            "none",
            "MKL_CBWR=AVX2",
            "variables none, here MKL_CBWR=AVX2 (set the environment variables as before)",
        ),
        (
            "instruction_sets",
            "x avx avx2",
            "x avx fma",
            "instruction sets avx2, here fma (one, now one)",
        ),
    ],
)
def test_a_difference_names_both_and_the_remedy(name: str, old: str, new: str, told: str) -> None:
    before, now = ({"processor": "one", name: value} for value in (old, new))
    assert arithmetic_difference(before, now) == told


def test_the_processors_name_alone_is_no_difference() -> None:
    assert arithmetic_difference({"processor": "one"}, {"processor": "two"}) is None
