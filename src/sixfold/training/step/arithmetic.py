"""What decides the bits of a processor's arithmetic: recorded, and compared when a run goes on.

Libraries choose kernels by instruction set, and kernels of two sets add in different orders. What
is compared is the version of torch, the set that ATen uses, the variables that restrict oneDNN and
MKL, what the processor knows, by which those two choose, and who makes convolutions' weight
gradients (`sixfold.training.native.conv_weights`) and 3x3 convolutions (`.winograd`). The
processor's name is recorded for people.
"""

import platform
from collections.abc import Mapping

import torch

from sixfold.core.environment import arithmetic_variables
from sixfold.core.processor import in_cpuinfo, processor, processor_name
from sixfold.training.native import conv_weights, winograd

_KNOWN = ("sse4", "avx", "fma", "f16c", "amx", "asimd", "sve", "bf16", "i8mm")
"""Beginnings of the processor's flags by which oneDNN and MKL choose kernels."""

Arithmetic = dict[str, str]


def arithmetic() -> Arithmetic:
    """That of this process, as words."""
    flags = sorted(flag for flag in processor() or () if flag.startswith(_KNOWN))
    return {
        "torch": torch.__version__,
        "aten": torch.backends.cpu.get_cpu_capability(),
        "variables": " ".join(f"{k}={v}" for k, v in arithmetic_variables().items()) or "none",
        "instruction_sets": " ".join([in_cpuinfo("vendor_id") or platform.machine(), *flags]),
        "weight_gradients": "conv.inc" if conv_weights.is_used() else "library",
        "convolutions": "winograd.inc" if winograd.is_used() else "library",
        "processor": processor_name(),
    }


def arithmetic_difference(
    before: Mapping[str, str], now: Mapping[str, str], *, apart: bool = False
) -> str | None:
    """In what two differ such that bits may, with what there is to do; None if in nothing.

    With `apart` the two are ranks of one run, and what there is to do is told elsewhere.

    >>> arithmetic_difference({"aten": "AVX2"}, {"aten": "AVX512"})
    'aten AVX2, here AVX512 (set ATEN_CPU_CAPABILITY=avx2)'
    >>> arithmetic_difference({"aten": "AVX2"}, {"aten": "AVX512"}, apart=True)
    'aten AVX2 and AVX512'
    """
    found = []
    for name, old in before.items():
        new = now.get(name, "")
        if old == new or name == "processor":
            continue
        remedy = _REMEDIES.get(name, "").format(old.lower() if name == "aten" else old)
        if name == "instruction_sets":
            gone, come = set(old.split()) - set(new.split()), set(new.split()) - set(old.split())
            old, new = (" ".join(sorted(words)) or "no more" for words in (gone, come))
            processors = [words.get("processor", "unknown") for words in (before, now)]
            remedy = " ({}, now {})".format(*processors)
        values = f"{old} and {new or 'none'}" if apart else f"{old}, here {new}{remedy}"
        found.append(f"{name.replace('_', ' ')} {values}")
    return "; ".join(found) or None


_REMEDIES = {
    "torch": " (install torch=={})",
    "aten": " (set ATEN_CPU_CAPABILITY={})",
    "variables": " (set the environment variables as before)",
}
