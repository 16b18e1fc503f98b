"""The driver of the peer on Spark: TorchDistributor in local mode starts the peers' loop.

Started as a script in a process of its own, so that its JVM, its session and its environment end
with it.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path


def main(processes: int, task_path: Path) -> None:
    """Run `peer_loop` with TorchDistributor, one thread a process.

    Args:
        processes: how many ranks.
        task_path: the task, for each of them.
    """
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{processes}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    distributor = TorchDistributor(num_processes=processes, local_mode=True, use_gpu=False)
    with resources.as_file(resources.files(__package__) / "peer_loop.py") as loop:
        distributor.run(str(loop), str(task_path))
    session.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
