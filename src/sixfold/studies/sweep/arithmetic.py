"""How many operations a training spends on an image, and how many bytes its weights have."""

from torch import nn

from sixfold.core.errors import UserError
from sixfold.perf.profile import layer_costs, total

SAMPLES = 2  # images that are counted together: batch-norm wants more than one


def training_flops(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """FLOPs of one image, forward and backward (a multiply-add is 2); 0 if they are unknown."""
    try:
        return total(layer_costs(network, shape, SAMPLES), "flops") / SAMPLES
    except UserError:
        return 0.0


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all weights, and so of a gradient."""
    return sum(weight.numel() * weight.element_size() for weight in network.parameters())
