"""Whether blocks of outputs are right: whole against the direct loop nest, or in samples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.blocks import TOLERANCE, Block, Corner, Sampled, all_there
from sixfold.studies.lab.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How right a result is."""

    compared: int  # outputs that were compared
    error: float  # the largest error, as a part of the sum of absolute values of what was added
    complete: bool  # whether every output was there, once
    right: bool  # whether all of it holds


def assemble(problem: Problem, blocks: Iterable[Block]) -> tuple[Array, bool]:
    """Blocks put together, (N, K, P, Q), and whether every output was in exactly one block."""
    outputs = np.zeros(problem.geometry.output_shape, problem.dtype)
    times = np.zeros(problem.geometry.output_shape, np.int64)
    for corner, values in blocks:
        place = tuple(slice(k, k + n) for k, n in zip(corner, values.shape, strict=True))
        outputs[place] += values
        times[place] += 1
    return outputs, bool((times == 1).all())


def compare(problem: Problem, outputs: Array, wanted: Array, *, complete: bool = True) -> Verdict:
    """Hold outputs to what they should be, by the direct loop nest."""
    error = float(np.max(np.abs(outputs - wanted))) / scale_of(problem) if outputs.size else 0.0
    return _verdict(problem, outputs.size, error, complete and outputs.shape == wanted.shape)


def compare_samples(problem: Problem, sampled: Sequence[Sampled]) -> Verdict:
    """Hold samples to the definition of a convolution, in float64."""
    samples = [sample for block in sampled for sample in block.samples]
    wanted = by_definition(problem, [at for at, _ in samples])
    errors = [abs(value - right) for (_, value), right in zip(samples, wanted, strict=True)]
    error = max(errors, default=0.0) / scale_of(problem)
    complete = all_there(sampled, prod(problem.geometry.output_shape))
    return _verdict(problem, len(samples), error, complete)


def _verdict(problem: Problem, compared: int, error: float, complete: bool) -> Verdict:
    right = complete and error <= TOLERANCE[problem.dtype]
    return Verdict(compared=compared, error=error, complete=complete, right=right)


def by_definition(problem: Problem, places: Iterable[Corner]) -> Iterator[float]:
    """The output at each place: the sum over c, r, s of w times x, in float64."""
    geometry = problem.geometry
    weights = problem.weights().astype(np.float64)
    (down, right), (row_step, column_step) = geometry.stride, geometry.dilation
    rows = np.arange(geometry.kernel[0]) * row_step - geometry.padding[0]
    columns = np.arange(geometry.kernel[1]) * column_step - geometry.padding[1]
    for n, k, p, q in places:
        image = problem.image(n)
        i, j = rows + p * down, columns + q * right
        inside_i = (i >= 0) & (i < geometry.size[0])
        inside_j = (j >= 0) & (j < geometry.size[1])
        pixels = image[np.ix_(np.arange(geometry.channels), i[inside_i], j[inside_j])]
        part = weights[k][:, inside_i][:, :, inside_j]
        yield float((part * pixels.astype(np.float64)).sum())


def scale_of(problem: Problem) -> float:
    """A bound of the sum of absolute values that make up an output, near its usual size.

    Values lie in [-0.5, 0.5), so that a product is 1/16 on the average of absolute values.
    """
    g = problem.geometry
    return g.channels * g.kernel[0] * g.kernel[1] / 16
