"""The launcher of a choice between dense and sparse layers."""

from typing import Any

from sixfold.core.errors import raise_problems
from sixfold.core.files import file_problems
from sixfold.core.run_store import local_out
from sixfold.prediction.sparse.config import SparseConfig


def choose_sparse(config: SparseConfig) -> dict[str, Any]:
    """Measure the layers of a pruned network and write which of them run sparse.

    The choice, as it is in the file, with the figures of all batch sizes, the time of the whole
    network dense and as chosen, and the number of dead channels removed.
    """
    forms = config.sparse_forms
    batches = _batches(forms.batches)
    found = config.problems()
    if not batches:
        found.append(f"--batches {forms.batches!r}: expected sizes such as 1,16,256")
    if not forms.run:
        found.append("give the network: sixfold sparse RUN")
    raise_problems(found)

    from sixfold.compression.loading import load_network, read_card
    from sixfold.distributed.process_group.ambient import one_thread
    from sixfold.prediction.sparse.choose import (
        load_choice,
        measure,
        save_choice,
        sparse_network,
        time_network,
    )
    from sixfold.prediction.sparse.dead_channels import remove_dead_channels
    from sixfold.training.model_card import weights_file

    file = weights_file(forms.run)
    out = local_out(forms.out, forms.run, file.with_name("sparse.json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    raise_problems(file_problems("--out", out))
    with one_thread():
        trusted = read_card(file, trust=forms.trust_model).model
        whole, card = load_network(file, trusted=trusted)
        small = load_network(file, trusted=trusted)[0]
        removed = remove_dead_channels(small, card.shape)
        by_batch = [
            measure(small, card.shape, n, repeats=forms.repeats, crossover=forms.crossover)
            for n in batches
        ]
        choice = save_choice(out, by_batch[-1])
        chosen = sparse_network(
            load_network(file, trusted=trusted)[0], card.shape, load_choice(out)
        )
        pair = {"dense_s": whole, "chosen_s": chosen}
        seconds = time_network(pair, card.shape, batches[-1], forms.repeats)
    return {
        **choice,
        **seconds,
        "dead_maps": removed,
        "file": str(out),
        "layers_by_batch": by_batch,
    }


def _batches(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        return []
    return [int(word) for word in words]
