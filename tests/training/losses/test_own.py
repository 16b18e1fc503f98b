"""Losses that users bring."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sixfold.training.losses.own import Function, call, find_loss, problems_of

KINDS: dict[str, Function] = {
    "CrossEntropyLoss": functional.cross_entropy,
    "NLLLoss": functional.nll_loss,
    "MultiMarginLoss": functional.multi_margin_loss,
}


@pytest.mark.parametrize("name", KINDS)
def test_losses_of_torch_are_sums_over_samples_here(name: str) -> None:
    torch.manual_seed(0)
    output, target = torch.randn(9, 4, dtype=torch.float64), torch.randint(4, (9,))
    expected = KINDS[name](output, target, reduction="sum")
    for spec in (f"torch.nn:{name}", f"torch.nn.functional:{KINDS[name].__name__}"):
        found = find_loss(spec)
        torch.testing.assert_close(call(found, output, target, None), expected)
        assert not problems_of(spec, found, output, target, weighted=False)


def test_a_mean_that_divides_by_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    output, target = torch.randn(8, 3), torch.arange(8) % 3
    for loss in (nn.CrossEntropyLoss(weight=torch.ones(3)), nn.CrossEntropyLoss(ignore_index=1)):
        monkeypatch.setattr("sixfold.training.losses.own.find_object", lambda *_, loss=loss: loss)
        (problem,) = problems_of("own", find_loss("own"), output, target, weighted=False)
        assert "reduction='sum'" in problem
