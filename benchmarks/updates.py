"""What an update of the weights costs, by optimizer, on one thread.

    python -m benchmarks.updates [OPTIMIZER[:ARGUMENTS] ...]

Prints the least processor time of 25 updates of a million float32 weights.
"""

from __future__ import annotations

import sys
import time

import torch

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.optimizer import make_optimizer

USUAL = ("sgd", "adam", "adamw", "adamw:fused=true", "rmsprop", "nadam")
WEIGHTS, UPDATES = 1 << 20, 25


def least_s(config: OptimizerConfig) -> float:
    """Seconds of the quickest update."""
    weights, gradient = torch.randn(WEIGHTS), torch.randn(WEIGHTS)
    rule = make_optimizer(config, weights)
    least = float("inf")
    for _ in range(UPDATES):
        given = gradient.clone()
        began = time.process_time()
        rule.update(weights, given, 1e-3)
        least = min(least, time.process_time() - began)
    return least


def main(names: list[str]) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    for text in names or USUAL:
        name, _, arguments = text.partition(":")
        config = OptimizerConfig(optimizer=name, optimizer_args=arguments)
        print(f"{text:<20}{1e3 * least_s(config):7.2f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
