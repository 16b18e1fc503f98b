"""`--cpu-isa`: the instruction set that libraries compute with, agreed on for all ranks.

ATen, oneDNN and MKL choose kernels by what the processor knows, and kernels of two instruction sets
add in different orders. Each reads a variable of its own, once, when it is first used: so variables
are set before torch is loaded. MKL besides promises the same bits on every processor that has the
set (Intel, "Conditional numerical reproducibility"). Kernels of our own need none: they add in one
order, whatever the processor knows (see norm.inc and conv.inc).
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.processor import processor, processor_name

NATIVE = "native"
"""Whatever each library chooses by itself."""


@dataclass(frozen=True)
class InstructionSet:
    """What it takes, in Linux's words, and what makes libraries keep to it."""

    needs: frozenset[str]
    variables: Mapping[str, str]


INSTRUCTION_SETS = {
    "avx2": InstructionSet(
        frozenset({"avx2", "fma"}),
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    ),
    "avx512": InstructionSet(
        frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}),
        {
            "ATEN_CPU_CAPABILITY": "avx512",
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
            "MKL_CBWR": "AVX512",
        },
    ),
}

_kept_to: list[str] = []
"""The set that this process was told to keep to before it loaded torch."""


def variables(name: str) -> Mapping[str, str]:
    """The environment of a process that is to compute with an instruction set."""
    return {} if name == NATIVE else INSTRUCTION_SETS[name].variables


def lacking(name: str) -> str:
    """Why this host cannot compute with an instruction set; empty if it can."""
    if name == NATIVE:
        return ""
    missing = INSTRUCTION_SETS[name].needs - (processor() or frozenset())
    if not missing:
        return ""
    return (
        f"--cpu-isa {name}: the processor of {socket.gethostname()} ({processor_name()}) has no "
        f"{', '.join(sorted(missing))}; give what all hosts have, or native"
    )


def keep_to(name: str) -> None:
    """Have this process compute with an instruction set, or make sure that it does.

    Raises:
        UserError: if the processor has not got it, or torch was loaded without being told.
    """
    if name == NATIVE or name in _kept_to:
        return
    raise_problems(lacking(name))
    wanted = variables(name)
    if "torch" not in sys.modules:
        os.environ.update(wanted)
        _kept_to[:] = [name]
    elif any(os.environ.get(key) != value for key, value in wanted.items()):
        settings = " ".join(f"{key}={value}" for key, value in wanted.items())
        raise UserError(
            f"--cpu-isa {name}: torch is already loaded in this process on {socket.gethostname()}, "
            f"and chose its kernels then: start Python with {settings}, or use --engine local"
        )
