"""Options as a user of PyTorch has them at hand."""

import datetime
import functools
from typing import Any

import pytest
import torch
from torch import nn

import sixfold
from sixfold.api.predictions import predict
from sixfold.api.values import settled
from sixfold.core.errors import UserError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"early_stopping": ("loss", 3)}, {"early_stopping": "loss:3"}),
        ({"early_stopping": False}, {"early_stopping": ""}),
        ({"augment": ["flip", "crop:2"]}, {"augment": "flip,crop:2"}),
        ({"augment": None, "seed": None, "resize": None}, {"resize": None}),
        ({"augment": False, "ema": False}, {"augment": "none", "ema": None}),
        ({"nesterov": False, "tls": True}, {"nesterov": False, "tls": "true"}),
        ({"lr_group": {"head": 10, "body": 0.1}}, {"lr_group": ("head=10", "body=0.1")}),
        ({"spark_conf": {"spark.x": True}}, {"spark_conf": ("spark.x=true",)}),
        ({"precision": torch.bfloat16}, {"precision": "bf16"}),
        ({"device": torch.device("cpu")}, {"device": "cpu"}),
        ({"workers": (1, 4)}, {"workers": "1:4"}),
        ({"max_time": datetime.timedelta(minutes=1)}, {"max_time": "60s"}),
        ({"class_weights": torch.ones(2)}, {"class_weights": "0=1.0,1=1.0"}),
        (
            {"optimizer": functools.partial(torch.optim.AdamW, lr=1, eps=0.1), "lr": 2},
            {"optimizer": "torch.optim:AdamW", "lr": 2, "optimizer_args": "eps=0.1"},
        ),
        (
            {"optimizer": torch.optim.SGD, "momentum": 0.5, "dampening": 0.1, "nesterov": False},
            {
                "optimizer": "torch.optim:SGD",
                "optimizer_args": "dampening=0.1,momentum=0.5,nesterov=False",
            },
        ),
    ],
)
def test_a_value_of_python_is_the_text_that_it_stands_for(
    given: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert settled(given) == (meant, [])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"early_stopping": True}, "METRIC[:PATIENCE], such as loss:5"),
        ({"early_stopping": {"loss": 5}}, "METRIC[:PATIENCE], such as loss:5"),
        ({"ema": True}, "expected a number (evaluate"),
        ({"on_error": True}, "expected text: fail, skip"),
        ({"validation": True}, "give a share, such as 0.1"),
        ({"schedule": len}, "sixfold.SetRate"),
        ({"callback": print}, "callbacks="),
        ({"callbacks": lambda _: None}, "a callback has on_start"),
        ({"lr": len}, "lr=<built-in function len>: expected a number"),
        ({"freeze": nn.Sequential(*[nn.ReLU()] * 5)}, "freeze=<Sequential>: expected text"),
        ({"resume": torch.ones(2)}, "resume is a Tensor: expected a single value"),
        ({"weights": nn.ReLU()}, "give that as the model"),
        ({"engine": 3}, "engine is a int: expected inline"),
        ({"on_event": True}, "expected a function"),
        ({"patience": 3}, "METRIC:PATIENCE"),
        ({"optimizer": torch.optim.AdamW, "momentum": 0.9}, "momentum=0.9: AdamW has none"),
        ({"optimizer": lambda weights: None}, "optimizer is a function: expected a class"),
        (
            {"optimizer": functools.partial(torch.optim.SGD, [torch.ones(1)])},
            "partial of one with keywords",
        ),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS: evaluates the loss several times a step"),
        ({"optimizer": torch.optim.SparseAdam}, "takes sparse gradients only"),
        ({"optimizer": "lbfgs"}, "lbfgs: evaluates the loss several times a step"),
        ({"optimizer": "torch.optim.AdamW"}, "did you mean torch.optim:AdamW?"),
    ],
)
def test_what_cannot_be_is_answered_with_what_to_give(given: dict[str, Any], told: str) -> None:
    options: dict[str, Any] = {"resize": 28, "engine": "inline"}
    with pytest.raises(UserError) as caught:
        sixfold.train("lenet5", "digits", **options | given)
    assert told in str(caught.value)


class _Network:
    """Stands for a trained network of which only the units of the pixels are asked."""

    pixel_range = ""


WRONG = [3, float("nan"), b"x", [1], {1}, object(), torch.zeros(2), torch.float32, nn.ReLU]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (sixfold.load, "the run is a"),
        (sixfold.open_run, "the run is a"),
        (sixfold.figures, "the run is a"),
        (lambda value: sixfold.load("nowhere", trust_model=value), "trust_model="),
        (lambda value: sixfold.train("lenet5", "digits", quiet=value), "quiet="),
        (lambda value: sixfold.tune("lenet5", "digits", search=value), "search is a"),
        (lambda value: sixfold.tune("lenet5", "digits", search={"lr": [[value]]}), "search"),
        (lambda value: sixfold.train("lenet5", value), "data"),
        (lambda value: predict(_Network(), [], batch_size=[value]), "batch_size="),  # type: ignore
        (lambda value: predict(_Network(), [], resize=[value]), "resize="),  # type: ignore
    ],
    ids=range(10),
)
def test_a_value_of_a_wrong_kind_is_told(call: Any, told: str) -> None:
    for value in WRONG:
        with pytest.raises(UserError, match=told):
            call(value)


@pytest.mark.parametrize("name", ["", "x" * 300, "a\0b", "\ud800"])
def test_what_no_file_can_be_called_is_told(name: str) -> None:
    for call in (sixfold.load, sixfold.open_run, sixfold.figures):
        with pytest.raises(UserError, match="no file can have such a name"):
            call(name)
    with pytest.raises(UserError, match=r"no file can have|expected text|names no place"):
        sixfold.train("lenet5", "digits", resize=28, out=name)
    with pytest.raises(UserError, match="did you mean resize"):
        predict(_Network(), [], resise=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        sixfold.configure,
        functools.partial(sixfold.train, "lenet5", "digits"),
        functools.partial(sixfold.lr_find, "lenet5", "digits"),
        sixfold.tickets,
    ],
)
def test_what_cannot_be_read_and_what_cannot_be_are_told_together(call: Any) -> None:
    with pytest.raises(UserError) as caught:
        call(lr="x", epochs=-1, workers=2.5)
    told = " ".join(caught.value.problems)
    assert [word in told for word in ("lr='x'", "epochs", "workers=2.5")] == [True] * 3
