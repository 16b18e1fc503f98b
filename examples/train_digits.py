"""Train LeNet-300-100 on digits with two workers, and again with one: equal bits."""

import sixfold


def main() -> None:
    """Train twice and compare."""
    options = {"data": "digits", "model": "lenet300", "epochs": 3, "lr": 0.1}
    hashes = []
    for workers in (2, 1):
        settings = sixfold.configure(**options, workers=workers, out=f"runs/digits-{workers}")
        result = sixfold.train(settings)
        print(f"{workers} workers: test accuracy {result['test_accuracy']:.1%}")
        hashes.append(result["weights_sha256"])
    print("the same weights, bit for bit:", hashes[0] == hashes[1])


if __name__ == "__main__":
    main()
