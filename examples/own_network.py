"""Train a network that stands in a file of one's own, `networks.py` beside this one.

The same from the shell, in this folder:

    sixfold train --data digits --model networks:Residual --model-args channels=16 --out runs/own
"""

import sixfold


def main() -> None:
    """Train it on 8x8 digits."""
    settings = sixfold.configure(
        data="digits",
        model="networks:Residual",
        model_args="channels=16",
        epochs=3,
        lr=0.05,
        engine="inline",
        out="runs/own",
    )
    result = sixfold.train(settings)
    print(f"test accuracy {result['test_accuracy']:.1%}, {result['parameters']} parameters")


if __name__ == "__main__":
    main()
