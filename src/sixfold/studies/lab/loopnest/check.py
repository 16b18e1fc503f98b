"""Whether blocks of outputs are right: whole against the direct loop nest, or in samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, Philox

from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.loopnest.blocks import Block, Corner
from sixfold.studies.lab.problem import Problem

SAMPLES = 8
"""Outputs of a block that are compared with the definition where the whole is not collected."""

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""Largest error, as a part of the sum of the absolute values of what was added."""

Sample = tuple[int, int, int, int, float]
"""n, k, p, q and the output there."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How right a result is."""

    compared: int  # outputs that were compared
    error: float  # the largest error, as a part of the sum of absolute values of what was added
    complete: bool  # whether every output was there, once
    right: bool  # whether all of it holds


def assemble(problem: Problem, blocks: Iterable[Block]) -> tuple[Array, bool]:
    """Blocks put together.

    Returns:
        (N, K, P, Q), and whether every output was in exactly one block.
    """
    outputs = np.zeros(problem.geometry.output_shape, problem.dtype)
    times = np.zeros(problem.geometry.output_shape, np.int64)
    for (n, k, p, q), values in blocks:
        a, b, c, d = values.shape
        place = np.s_[n : n + a, k : k + b, p : p + c, q : q + d]
        outputs[place] += values
        times[place] += 1
    return outputs, bool((times == 1).all())


def compare(outputs: Array, wanted: Array, scale: float, dtype: str, *, complete: bool) -> Verdict:
    """Hold outputs to what they should be.

    Args:
        outputs: what was computed.
        wanted: the same by the direct loop nest.
        scale: a bound of the sum of absolute values that make up an output.
        dtype: arithmetic of the outputs.
        complete: whether every output was there, once.
    """
    error = float(np.max(np.abs(outputs - wanted))) / scale if outputs.size else 0.0
    right = complete and outputs.shape == wanted.shape and error <= TOLERANCE[dtype]
    return Verdict(compared=outputs.size, error=error, complete=complete, right=right)


def take_samples(block: Block) -> tuple[Corner, int, list[Sample]]:
    """What a task tells of a block that stays where it is: its corner, its size, some values."""
    (n, k, p, q), values = block
    generator = Generator(Philox(key=[hash((n, k, p, q)) & (2**63 - 1), values.size]))
    places = generator.integers(0, values.size, min(SAMPLES, values.size))
    found = []
    for flat in places:
        a, b, c, d = (int(index) for index in np.unravel_index(flat, values.shape))
        found.append((n + a, k + b, p + c, q + d, float(values[a, b, c, d])))
    return (n, k, p, q), int(values.size), found


def compare_samples(
    problem: Problem, told: Sequence[tuple[Corner, int, list[Sample]]], scale: float
) -> Verdict:
    """Hold samples to the definition of a convolution, in float64."""
    corners = {corner for corner, _, _ in told}
    size = sum(count for _, count, _ in told)
    complete = len(corners) == len(told) and size == int(np.prod(problem.geometry.output_shape))
    samples = [sample for _, _, found in told for sample in found]
    wanted = list(by_definition(problem, samples))
    errors = [abs(value - right) for (*_, value), right in zip(samples, wanted, strict=True)]
    error = max(errors, default=0.0) / scale
    right = complete and error <= TOLERANCE[problem.dtype]
    return Verdict(compared=len(samples), error=error, complete=complete, right=right)


def by_definition(problem: Problem, samples: Iterable[Sample]) -> Iterator[float]:
    """The output at each sample's place: the sum over c, r, s of w times x, in float64."""
    geometry = problem.geometry
    weights = problem.weights().astype(np.float64)
    (down, right), (row_step, column_step) = geometry.stride, geometry.dilation
    rows = np.arange(geometry.kernel[0]) * row_step - geometry.padding[0]
    columns = np.arange(geometry.kernel[1]) * column_step - geometry.padding[1]
    for n, k, p, q, _ in samples:
        image = problem.images(n // problem.block)[n % problem.block]
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
