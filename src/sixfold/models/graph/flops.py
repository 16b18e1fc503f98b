"""What one call of an operation costs in floating-point operations, forward and backward.

The convention, for every count of FLOPs in Sixfold:

- a multiply-add is 2 operations; the addition of a bias is part of the last one and not counted;
- products (convolution, linear, matrix multiplication) are counted as the textbook's sums, whatever
  algorithm computes them: 2 N K H' W' C R S / groups for a convolution;
- everything else counts the operations of its formula on each element, one each, also where one
  of them is an exponential or a root: ReLU 1, batch-norm 6 forward and 10 backward, max-pool R S
  comparisons for each output;
- moving numbers (views, copies, concatenation, padding) counts nothing; it shows in the bytes.

Legend: N images, C input and K output channels, H' W' output rows and columns, R S kernel.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from sixfold.models.graph.operations import Flops, operation_named

NORM_FLOPS = (6, 10)
"""Of each element: mean 1, centred square and its sum 3, scale and shift 2; backward the sums of
dy and of dy x 1 + 2, the centred and scaled input again 3, and the combination of them 4."""

EVAL_NORM_FLOPS = (2, 1)  # With stored statistics batch-norm is one multiply-add an element
SOFTMAX_FLOPS = (4, 3)
"""Of each element: maximum, difference, exponential, sum; backward a product, a sum, a difference
(the division by the sum is one a row)."""

Arguments = dict[str, Any]
Inputs = Sequence[Tensor]


def count(name: str, arguments: Arguments, inputs: Inputs, output: Tensor) -> Flops | None:
    """Operations of a call; None if the function is not known.

    `name` is from `plain_name`; `arguments` are by place ("0", "1", ...) and by name.
    """
    row = operation_named(name)
    if row is None or row.flops is None:
        return None
    if callable(row.flops):
        return row.flops(arguments, inputs, output)
    forward, backward = row.flops
    return forward * output.numel(), backward * output.numel()


def of_convolution(_: Arguments, inputs: Inputs, output: Tensor) -> Flops:
    """Every output value is a sum over the kernel and its group's input channels: K, C/g, R, S."""
    one = 2 * output.numel() * prod(inputs[1].shape[1:])
    return one, one


def of_transposed_convolution(_: Arguments, inputs: Inputs, __: Tensor) -> Flops:
    """Every input value meets a kernel for each of its group's output channels: C, K/g, R, S."""
    one = 2 * inputs[0].numel() * prod(inputs[1].shape[1:])
    return one, one


def of_product(_: Arguments, inputs: Inputs, output: Tensor) -> Flops:
    """A matrix multiplication, whose first input is a factor."""
    one = 2 * output.numel() * int(inputs[0].shape[-1])
    return one, one


def of_added_product(_: Arguments, inputs: Inputs, output: Tensor) -> Flops:
    """A matrix multiplication behind what it is added to."""
    one = 2 * output.numel() * int(inputs[1].shape[-1])
    return one, one


def of_multiplication(_: Arguments, inputs: Inputs, output: Tensor) -> Flops:
    """Backward, each of the factors."""
    size = output.numel()
    return size, 2 * size if len(inputs) > 1 else size


def of_batch_norm(arguments: Arguments, _: Inputs, output: Tensor) -> Flops:
    """With the batch's own statistics, or stored ones."""
    training = _argument(arguments, "5", "training", default=False)
    forward, backward = NORM_FLOPS if training else EVAL_NORM_FLOPS
    return forward * output.numel(), backward * output.numel()


def of_cross_entropy(_: Arguments, inputs: Inputs, __: Tensor) -> Flops:
    """Log-softmax and the choice of the label's."""
    size = inputs[0].numel()
    return (SOFTMAX_FLOPS[0] + 1) * size, 2 * size


def of_reduction(_: Arguments, inputs: Inputs, __: Tensor) -> Flops:
    """One for each element of the input."""
    return inputs[0].numel(), inputs[0].numel()


def of_max_pool(arguments: Arguments, inputs: Inputs, output: Tensor) -> Flops:
    """A comparison for each place of the window; backward one place gets the gradient."""
    return output.numel() * _window(arguments, inputs), output.numel()


def of_average_pool(arguments: Arguments, inputs: Inputs, output: Tensor) -> Flops:
    """An addition for each place of the window, both ways."""
    size = output.numel() * _window(arguments, inputs)
    return size, size


def of_response_norm(arguments: Arguments, _: Inputs, output: Tensor) -> Flops:
    """Squares summed over neighbouring channels."""
    depth = int(_argument(arguments, "1", "size", default=5))
    return output.numel() * (depth + 4), output.numel() * (depth + 6)


def _argument(arguments: Arguments, place: str, name: str, *, default: Any) -> Any:
    return arguments.get(name, arguments.get(place, default))


def _window(arguments: Arguments, inputs: Inputs) -> int:
    kernel = _argument(arguments, "1", "kernel_size", default=1)
    if isinstance(kernel, int):
        return prod([kernel] * (inputs[0].dim() - 2))
    return prod(int(k) for k in kernel)
