"""Train a network that stands in a file of one's own, `networks.py` beside this one.

The same from the shell, in this folder:

    sixfold train --data digits --model networks:Residual --model-args channels=16 --out runs/own
"""

from networks import Residual

import sixfold


def main() -> None:
    """Train it on 8x8 digits."""
    result = sixfold.train(
        Residual, "digits", model_args="channels=16", epochs=3, lr=0.05, engine="inline",
        workers=1, out="runs/own",
    )  # fmt: skip
    print(f"test accuracy {result.test_accuracy:.1%}, {result.parameters} parameters")


if __name__ == "__main__":
    main()
