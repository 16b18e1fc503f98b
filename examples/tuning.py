"""Search for a learning rate and a batch size, then train the winner again by itself.

sixfold tune --data digits --validation 0.2 --search lr=log:1e-3:0.3 --search batch-size=16,32 ...
"""

from torch import nn

import sixfold


def network(classes: int, width: int = 32) -> nn.Module:
    """Two linear layers for the digits of 8x8 pixels."""
    layers = [nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes)]
    return nn.Sequential(*layers)


def main() -> None:
    """Search, tell what was found, and train the best settings once more."""
    found = sixfold.tune(
        network,
        "digits",
        search={"lr": "log:1e-3:0.3", "batch_size": [16, 32], "model.width": [16, 64]},
        validation=0.2,
        trials=8,
        epochs=3,
        engine="inline",
        out="runs/tuning",
    )
    assert found.best is not None
    chosen = ", ".join(f"{name} {value}" for name, value in found.best.values.items())
    print(f"{chosen}: validation accuracy {found.best.value:.1%}")
    print(f"trained {found.steps} of {found.steps_of_all} steps")

    settings = dict(found.best.settings)
    settings["model"] = network
    again = sixfold.train(data="digits", engine="inline", out="runs/again", **settings)
    print("the winner, bit for bit:", again.weights_sha256 == found.best.weights_sha256)


if __name__ == "__main__":
    main()
