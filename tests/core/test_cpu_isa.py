"""Libraries keep to an instruction set, or the process refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.core import cpu_isa
from sixfold.core.cpu_isa import INSTRUCTION_SETS, keep_to, lacking, variables
from sixfold.core.errors import UserError
from sixfold.core.processor import processor
from sixfold.training.run import train

Configure = Callable[..., Any]

has_avx2 = pytest.mark.skipif(bool(lacking("avx2")), reason="needs AVX2")


def test_more_than_the_processor_has_is_refused_with_the_host(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_isa, "processor", lambda: frozenset({"avx2", "fma", "avx512f"}))
    assert lacking("avx2") == lacking("native") == ""
    expected = f"the processor of {socket.gethostname()} .* has no avx512bw, avx512dq, avx512vl"
    with pytest.raises(UserError, match=expected):
        keep_to("avx512")
    config = configure(engine="local", cpu_isa="avx512", lr=-1.0, out=str(tmp_path / "run"))
    with pytest.raises(UserError) as caught:
        train(config)
    assert len(caught.value.problems) == 2  # with everything else that is wrong


def test_a_process_that_has_chosen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_isa, "lacking", lambda _: "")
    with pytest.raises(UserError, match=r"torch is already loaded .*ATEN_CPU_CAPABILITY=avx512"):
        keep_to("avx512")
    for name, value in variables("avx512").items():
        monkeypatch.setenv(name, value)
    keep_to("avx512")


@pytest.mark.full
@has_avx2
@pytest.mark.parametrize("engine", ["local", pytest.param("inline", marks=pytest.mark.full)])
def test_ranks_keep_to_it(engine: str, tmp_path: Path) -> None:
    command = (
        f"-m sixfold train --data synthetic:100x1x28x28 --model lenet5 --steps 2 --workers 2 "
        f"--engine {engine} --cpu-isa avx2 --evaluate-every 0 --out {tmp_path / 'run'}"
    )
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (found["cpu_isa"], found["arithmetic"]["aten"]) == ("avx2", "AVX2")
    assert found["arithmetic"]["variables"] == "MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2"


def test_what_each_needs_is_in_linuxs_words() -> None:
    known = processor()
    if known is None or "sse2" not in known:
        pytest.skip("needs an x86 processor on Linux")
    assert INSTRUCTION_SETS["avx512"].needs > {"fma"}
    assert not INSTRUCTION_SETS["avx2"].needs - known or "avx2" not in known
