"""A user's own operation: one row, and every part of Sixfold knows it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.extensions.swish import SWISH, Swish, SwishOp, network
from torch import nn

from sixfold.models.graph.operations import Operation, operation_of, register_operation
from sixfold.perf.profile.layers import layer_costs
from sixfold.training.config import TrainConfig
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.run import train
from sixfold.training.step.micro_batches import why_whole

Configure = Callable[..., TrainConfig]
MODEL = {"model": "tests.extensions.swish:network", "precision": "float64"}
SMALL = MODEL | {"data": "synthetic:64x3x8x8", "batch_size": 16, "steps": 4}


class Branched(nn.Module):
    """A forward of its own that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(3, 3, 1), Swish(), nn.Linear(192, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((x + self.act(self.conv(x))).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", [network((3, 8, 8), 2), Branched()], ids=["sequence", "forward"])
def test_its_backward_pass_is_the_explicit_one(model: nn.Module) -> None:
    model = model.double()
    weights = list(model.parameters())
    executor = LayerExecutor(model, weights)
    assert not executor.needs_autograd
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    y, saved = executor.forward(x)
    assert any(isinstance(op, SwishOp) for op, _ in executor.made)
    out = [torch.empty_like(weight) for weight in weights]
    executor.backward(saved, torch.ones_like(y), out)
    expected = torch.autograd.grad(model(x).sum(), weights)
    for own, other in zip(out, expected, strict=True):
        torch.testing.assert_close(own, other)


def test_it_is_divided(configure: Configure, tmp_path: Path) -> None:
    serial = train(configure(**SMALL, out=str(tmp_path / "serial")))
    divided = train(
        configure(
            **SMALL, out=str(tmp_path / "divided"), strategy="model_parallel", workers=2,
            grid="rows=2",
        )
    )  # fmt: skip
    assert abs(serial["test_loss"] - divided["test_loss"]) < 1e-10


def test_it_is_costed_as_its_row_says() -> None:
    cost = layer_costs(network((3, 8, 8), 2), (3, 8, 8), 5, loss=False)[1]
    size = 5 * 4 * 8 * 8
    assert (cost.name, cost.kind, [f.name for f in cost.functions]) == ("1", "Swish", ["swish"])
    assert (cost.forward_flops, cost.backward_flops) == (2 * size, 6 * size)
    assert (cost.forward_bytes, cost.unknown) == (2 * 4 * size, ())


def test_its_samples_are_known_to_stay_apart() -> None:
    assert why_whole(network((3, 8, 8), 2)) == ""


def test_a_class_belongs_to_one_row() -> None:
    assert operation_of(Swish()) is SWISH
    with pytest.raises(ValueError, match="Swish belongs to 'swish' already"):
        register_operation(Operation(name="mine", modules=(Swish,)))
