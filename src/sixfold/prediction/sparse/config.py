"""Settings of `sixfold sparse`, in the form from which the command line makes its options."""

from dataclasses import dataclass

from sixfold.core.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class SparseFormsConfig(Settings):
    """Which network's layers are measured, dense and sparse, and how."""

    run: str = option("", "run directory, a ticket's folder, model.safetensors or model.sixz")
    batches: str = option(
        "1,16,256", "batch sizes, separated by commas; the choice is made for the last"
    )
    repeats: int = option(7, "timings of each form of each layer; the least counts", ge=1)
    crossover: bool = option(
        False, "also look for the part of weights left below which sparse forms win"
    )
    out: str | None = option(None, "file for the choice (default: sparse.json in the run)")
    trust_model: bool = option(
        False, "run the code that the weights name even if it is not your project's"
    )


@dataclass(frozen=True, kw_only=True)
class SparseConfig(Settings):
    """Everything that `sixfold sparse` takes."""

    sparse_forms: SparseFormsConfig = SparseFormsConfig()
