"""Outputs by name, in every form in which networks give them."""

import torch
from tests.conformance import several_outputs

from sixfold.models.outputs import main_output, named_outputs, rebuilt


def test_outputs_are_put_back_into_their_own_structure() -> None:
    main_one, other = torch.zeros(2, 3), torch.ones(2, 3)
    for name, form in several_outputs.FORMS.items():
        value = form(main_one, other)
        assert main_output(value) is main_one, name
        again = rebuilt(value, {key: each + 1 for key, each in named_outputs(value).items()})
        assert type(again) is type(value)
        assert [*named_outputs(again)] == [*named_outputs(value)]
        assert torch.equal(main_output(again), main_one + 1)
    assert several_outputs.FORMS["model_output"](main_one, other).logits is main_one
    assert named_outputs({"out": main_one, "hidden": (other, other)}) == {}
