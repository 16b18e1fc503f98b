"""Train a network, compress it into one small file, and run that file."""

import torch

import sixfold


def main() -> None:
    """Train, compress, load."""
    dense = sixfold.train("lenet300", "digits", epochs=5, lr=0.1, engine="inline", out="runs/dense")
    small = sixfold.compress(
        dense, sparsity="0.8", rounds=1, prune_epochs=1, share_epochs=1, engine="inline",
        out="runs/small",
    )  # fmt: skip
    last = small["stages"][-1]
    print(f"test accuracy {dense.test_accuracy:.1%} -> {last['test_accuracy']:.1%}")
    network = sixfold.load("runs/small/model.sixz")
    print("scores of a blank image:", network(torch.zeros(1, *network.shape)).tolist()[0][:3])


if __name__ == "__main__":
    main()
