"""`sixfold sparse`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand
from sixfold.prediction.sparse.config import SparseConfig


def summary(found: dict[str, Any]) -> list[str]:
    """The table of the layers, and the time of the whole network."""
    layers = [layer for batch in found["layers_by_batch"] for layer in batch]
    heads = "".join(f"{form:>11}" for form in ("dense", "csr", "axpy"))
    last = "crossover" if any(layer.crossover is not None for layer in layers) else ""
    lines = [f"{'layer':<28}{'batch':>6}{'left':>8}{heads}  {'best':<7}{last}"]
    for layer in layers:
        times = "".join(f"{1e6 * layer.seconds[form]:>8.0f} us" for form in layer.seconds)
        point = "" if layer.crossover is None else f"{layer.crossover:.0%}"
        lines.append(
            f"{layer.name:<28}{layer.batch:>6}{layer.density:>8.1%}{times}  {layer.best:<7}{point}"
        )
    dense, chosen = 1e3 * found["dense_s"], 1e3 * found["chosen_s"]
    return [
        *lines,
        f"dead channels removed       {found['dead_maps']}",
        f"whole network               {dense:.2f} ms dense, {chosen:.2f} ms as chosen "
        f"({dense / chosen:.2f} times), batch {found['batch']}",
        f"use it with                 sixfold predict ... --sparse {found['file']}",
    ]


COMMAND = ConfigCommand(
    config=SparseConfig,
    function="sixfold.prediction.sparse.run:choose_sparse",
    summary=summary,
    words={"run": ("RUN", "run directory")},
    events=False,
)
options, run = COMMAND.options, COMMAND.run
