"""Train a network to say numbers of an image: how much ink a digit has, and where its middle is.

The images and numbers are a table. The same from the shell, once the table is there:

    sixfold train --data parquet:ink.parquet --label-column ink,middle --loss l1 --out runs/ink
"""

import numpy as np
import pandas as pd

import sixfold
from sixfold.data import digits


def make_table() -> None:
    """Write digits of 16x16 pixels with the two numbers."""
    store = digits.load(16)[0]
    images = store.images(np.arange(len(store.labels)))[:, 0]
    ink = images.mean((1, 2)) / 255
    rows = (images.sum(2) * np.arange(16)).sum(1) / images.sum((1, 2)) / 16
    columns = {"image": images.tolist(), "ink": ink, "middle": rows}
    pd.DataFrame(columns).to_parquet("ink.parquet")


def main() -> None:
    """Train, predict, and compare with the truth."""
    make_table()
    result = sixfold.train(
        "lenet300",
        "parquet:ink.parquet",
        label_column="ink,middle",
        loss="l1",
        epochs=10,
        lr=0.02,
        validation=0.1,
        engine="inline",
        out="runs/ink",
    )
    for one in result.per_target:
        print(f"{one['name']}: mean absolute error {one['mae']:.3f}, R2 {one['r2']:.2f}")
    store = digits.load(16)[1]
    numbers = result.predict(store.images(np.arange(3))).values
    print("ink and middle of three other digits:", numbers.round(2).tolist())


if __name__ == "__main__":
    main()
