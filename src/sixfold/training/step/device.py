"""Which device a rank computes on, and what is settled there before it computes.

`--device cuda` is written against PyTorch's documentation and was never run on a GPU. What it
promises: the same bits for any number of ranks on GPUs of one kind, with one version of PyTorch,
CUDA and cuDNN, because every shard is computed by deterministic kernels that are chosen by shape,
and added up on the host in the fixed tree. They are not the bits of the CPU.
"""

import torch

from sixfold.core.environment import settle_cublas
from sixfold.training.config import ComputeConfig

CPU, CUDA = "cpu", "cuda"


def rank_device(name: str, rank: int) -> torch.device | None:
    """The device of a rank: None for the CPU, whose step is another; GPUs are dealt out in turns.

    Args:
        name: as `--device` gives it.
        rank: of the process group.
    """
    if name == CPU:
        return None
    return torch.device(CUDA, rank % torch.cuda.device_count())


def device_problems(name: str) -> list[str]:
    """Why a device cannot be used on this machine, with the remedy; one line or none."""
    if name == CPU:
        return []
    if torch.version.cuda is None and torch.version.hip is None:
        return [
            f"--device {name}: this PyTorch ({torch.__version__}) was built without CUDA; install "
            "one that was (pytorch.org/get-started), or give --device cpu"
        ]
    if torch.cuda.device_count() == 0:
        return [
            f"--device {name}: no GPU is visible (does `nvidia-smi` list one? does "
            "CUDA_VISIBLE_DEVICES hide it?); make one visible, or give --device cpu"
        ]
    return []


def settle_arithmetic(compute: ComputeConfig, *, exact: bool) -> None:
    """From now on GPUs compute as the settings want it; for the process, and before it uses one.

    Args:
        compute: the settings.
        exact: only kernels that give the same bits each time; an operation that has none fails.
    """
    settle_cublas()
    torch.use_deterministic_algorithms(exact)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = exact
    _allow_tf32(compute.tf32)


def _allow_tf32(allowed: bool) -> None:
    conv = getattr(torch.backends.cudnn, "conv", None)
    if conv is None:  # before PyTorch 2.9
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        return
    conv.fp32_precision = "tf32" if allowed else "ieee"
    torch.backends.cuda.matmul.fp32_precision = conv.fp32_precision


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generator of a GPU, for networks that draw by themselves."""
    if device.type == CUDA:
        torch.cuda.default_generators[device.index].manual_seed(seed)


def device_name(device: torch.device | None) -> str:
    """What a result says of a device.

    >>> device_name(None)
    'cpu'
    """
    if device is None or device.type != CUDA:
        return CPU
    return f"{device} ({torch.cuda.get_device_name(device)})"
