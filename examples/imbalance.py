"""Train on classes of which one is rare, with and without weights that make up for it.

sixfold train --data parquet:rare.parquet --loss binary --class-weights balanced --out runs/rare
"""

import numpy as np
import pandas as pd

import sixfold
from sixfold.data import digits


def make_table() -> None:
    """Write digits of which every thirtieth is an eight; a sixth are, in truth."""
    store = digits.load(16)[0]
    eights = np.flatnonzero(store.labels == 8)[::5]
    kept = np.sort(np.concatenate([np.flatnonzero(store.labels != 8), eights]))
    images = store.images(kept)[:, 0]
    label = np.where(store.labels[kept] == 8, "eight", "another")
    pd.DataFrame({"image": images.tolist(), "label": label}).to_parquet("rare.parquet")


def main() -> None:
    """Train twice, and tell how many of the rare class were found."""
    make_table()
    for weights in ("", "balanced"):
        result = sixfold.train(
            "lenet300",
            "parquet:rare.parquet",
            loss="binary",
            class_weights=weights,
            epochs=3,
            lr=0.01,
            engine="inline",
            out=f"runs/rare-{weights or 'plain'}",
        )
        rare = next(one for one in result["per_class"] if one["name"] == "eight")
        print(
            f"weights {weights or 'none':<9} accuracy {result.test_accuracy:.1%}, "
            f"balanced {result.balanced_accuracy:.1%}, "
            f"eights found {rare['correct']} of {rare['images']}"
        )


if __name__ == "__main__":
    main()
