"""Search for lottery tickets: do half and a tenth of the weights train as well as all of them?"""

import sixfold


def main() -> None:
    """One dense training, then a sparse one for each sparsity."""
    result = sixfold.tickets(
        data="digits",
        model="lenet300",
        sparsities="0.5,0.9",
        epochs=2,
        lr=0.1,
        engine="inline",
        out="runs/tickets",
    )
    print(f"dense: {result['dense']['test_accuracy']['mean']:.1%}")
    for cell in result["cells"]:
        accuracy = cell["test_accuracy"]["mean"]
        print(f"{1 - cell['sparsity']:.0%} of the weights: {accuracy:.1%}, {cell['verdict']}")


if __name__ == "__main__":
    main()
