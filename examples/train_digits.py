"""Train LeNet-300-100 on digits with two workers, and again with one: equal bits."""

import sixfold


def main() -> None:
    """Train twice and compare."""
    hashes = []
    for workers in (2, 1):
        result = sixfold.train(
            "lenet300", "digits", epochs=3, lr=0.1, workers=workers, out=f"runs/digits-{workers}"
        )
        print(f"{workers} workers: test accuracy {result.test_accuracy:.1%}")
        hashes.append(result.weights_sha256)
    print("the same weights, bit for bit:", hashes[0] == hashes[1])


if __name__ == "__main__":
    main()
