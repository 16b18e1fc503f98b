from __future__ import annotations

import numpy as np
import pytest

from sixfold.studies.convolution import direct
from sixfold.studies.convolution.geometry import Geometry
from sixfold.studies.lab.blocks import Block, take_samples
from sixfold.studies.lab.loopnest.check import (
    assemble,
    by_definition,
    compare,
    compare_samples,
)
from sixfold.studies.lab.problem import Problem

UNEVEN = Geometry.of((5, 2, 7, 9), (3, 2, 3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))


@pytest.fixture
def problem() -> Problem:
    return Problem(geometry=UNEVEN, block=2, seed=3, dtype="float64")


@pytest.fixture
def blocks(problem: Problem) -> list[Block]:
    """The right outputs, in a block for every block of images and every row."""
    outputs = direct.forward(problem.all_images(), problem.weights(), problem.geometry)
    return [
        ((first, 0, row, 0), outputs[first:last, :, row : row + 1])
        for first, last in (problem.bounds(block) for block in range(problem.blocks))
        for row in range(problem.geometry.out[0])
    ]


def test_images_are_the_same_whatever_the_blocks(problem: Problem) -> None:
    other = Problem(geometry=UNEVEN, block=5, seed=3, dtype="float64")
    np.testing.assert_array_equal(problem.all_images(), other.all_images())
    assert len(np.unique(problem.all_images())) > 0.99 * problem.pixels


def test_blocks_make_up_the_whole(problem: Problem, blocks: list[Block]) -> None:
    wanted = direct.forward(problem.all_images(), problem.weights(), problem.geometry)
    outputs, complete = assemble(problem, blocks)
    assert complete
    verdict = compare(problem, outputs, wanted, complete=complete)
    assert verdict.right
    assert verdict.compared == wanted.size
    assert verdict.error == 0.0


@pytest.mark.parametrize("harm", ["missing", "twice", "wrong", "shifted"])
def test_harm_is_found_in_the_whole_and_in_samples(
    problem: Problem, blocks: list[Block], harm: str
) -> None:
    wanted, _ = assemble(problem, blocks)
    if harm == "missing":
        blocks = blocks[1:]
    elif harm == "twice":
        blocks = [*blocks, blocks[0]]
    elif harm == "wrong":
        blocks[3] = (blocks[3][0], blocks[3][1] + 1e-6)
    else:
        corner, values = blocks[4]
        blocks[4] = (corner, np.roll(values, 1, axis=3))
    outputs, complete = assemble(problem, blocks)
    assert not compare(problem, outputs, wanted, complete=complete).right
    told = [take_samples(block) for block in blocks]
    assert not compare_samples(problem, told).right


def test_samples_are_held_to_the_definition(problem: Problem, blocks: list[Block]) -> None:
    told = [take_samples(block) for block in blocks]
    verdict = compare_samples(problem, told)
    assert verdict.right
    assert verdict.compared > 50
    places, values = zip(*(sample for found in told for sample in found.samples), strict=True)
    np.testing.assert_allclose(list(by_definition(problem, places)), values, atol=1e-13)
