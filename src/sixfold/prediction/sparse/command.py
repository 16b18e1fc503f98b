"""`sixfold sparse`."""

from __future__ import annotations

import argparse

from sixfold.core.console.options import add_options, read_config, refuse
from sixfold.prediction.sparse.config import SparseConfig


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: every field of the configuration, the run by its place."""
    parser.add_argument("run_word", nargs="?", metavar="RUN", help="run directory")
    add_options(parser, SparseConfig)


def run(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Measure, and print the table."""
    values = vars(arguments)
    values["run"] = values["run"] or values["run_word"]
    config, unread = read_config(SparseConfig, values)
    refuse(config, [*problems, *unread])
    from sixfold.prediction.sparse.run import choose_sparse

    found = choose_sparse(config)
    heads = "".join(f"{form:>11}" for form in ("dense", "csr", "axpy"))
    last = "crossover" if config.sparse_forms.crossover else ""
    print(f"{'layer':<28}{'batch':>6}{'left':>8}{heads}  {'best':<7}{last}")
    for layers in found["layers_by_batch"]:
        for layer in layers:
            times = "".join(f"{1e6 * layer.seconds[form]:>8.0f} us" for form in layer.seconds)
            point = "" if layer.crossover is None else f"{layer.crossover:.0%}"
            print(
                f"{layer.name:<28}{layer.batch:>6}{layer.density:>8.1%}{times}  "
                f"{layer.best:<7}{point}"
            )
    print(f"dead maps removed           {found['dead_maps']}")
    dense, chosen = 1e3 * found["dense_s"], 1e3 * found["chosen_s"]
    print(
        f"whole network               {dense:.2f} ms dense, {chosen:.2f} ms as chosen "
        f"({dense / chosen:.2f} times), batch {found['batch']}"
    )
    print(f"use it with                 sixfold predict ... --sparse {found['file']}")
    return 0
