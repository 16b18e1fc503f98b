"""Begin with the weights of another task: keep its features, train a new head, write it out.

sixfold train --data shards:few --model lenet5 --weights runs/ten --freeze features,classifier.1
sixfold export RUN --out fine.pt2
"""

from typing import Any

import numpy as np

import sixfold
from sixfold.data import digits

SETTINGS: dict[str, Any] = {"model": "lenet5", "engine": "inline", "lr": 0.003, "batch_size": 10}


def odd_or_even(
    count: int | None, *, test: bool = False
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first so many digits, (N, 1, 28, 28), and whether each is odd."""
    store = digits.load(28)[test]
    chosen = np.arange(len(store.labels))[:count]
    return store.images(chosen), np.where(store.labels[chosen] % 2, "odd", "even")


def main() -> None:
    """Learn the ten numerals; then, from few images, which of them are odd."""
    ten = sixfold.train(data="digits", resize=28, epochs=5, out="runs/ten", **SETTINGS)
    print(f"ten numerals, {ten.test_accuracy:.1%} told right")
    few, test = odd_or_even(20), odd_or_even(None, test=True)
    scratch = sixfold.train(data=few, test=test, steps=30, out="runs/scratch", **SETTINGS)
    fine = sixfold.train(
        data=few,
        test=test,
        steps=30,
        weights=str(ten.path),
        freeze="features,classifier.1",
        out="runs/fine",
        **SETTINGS,
    )
    print(f"odd or even, from scratch: {scratch.test_accuracy:.1%}")
    print(
        f"odd or even, fine-tuned: {fine.test_accuracy:.1%}, "
        f"{fine.trainable_parameters:,} of {fine.parameters:,} parameters trained"
    )
    written = sixfold.export(fine, "fine.pt2")
    print(f"written for torch, largest difference {written['largest_difference']:.1g}")


if __name__ == "__main__":
    main()
