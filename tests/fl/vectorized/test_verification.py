"""A program is right if it agrees with the eager pass, up to rounding, at one of a few points."""

import torch

from fl.training.parameters import Segment
from fl.vectorized.verification import difference

SEGMENTS = [Segment("first", 0, (2,)), Segment("second", 2, (1,))]
ARGUMENTS = (
    torch.ones(2, 3), torch.ones(2, 4, 1), torch.zeros(2, 4, dtype=torch.long),
    torch.full((2, 4), 0.25), torch.full((2,), 4.0), torch.ones(2, 1),
)  # fmt: skip


def expected(weights, inputs, labels, example_weights, real, buffer):
    losses = (inputs.flatten(1) * example_weights).sum(1) * weights.sum(1)
    return losses, 2 * weights, buffer + 1


def changed(place: int, columns: slice = slice(None), calls: int = 99):
    """Return `expected` with one result off by 1 %, in as many calls."""
    left = [calls]

    def run(*arguments):
        results = list(expected(*arguments))
        left[0] -= 1
        if left[0] >= 0:
            results[place][..., columns] *= 1.01
        return results

    return run


def test_the_first_wrong_result_is_named():
    assert difference(expected, expected, ARGUMENTS, SEGMENTS) is None
    assert difference(changed(0), expected, ARGUMENTS, SEGMENTS) == "the losses"
    assert difference(changed(1), expected, ARGUMENTS, SEGMENTS) == "first"
    assert difference(changed(1, slice(2, 3)), expected, ARGUMENTS, SEGMENTS) == "second"
    assert difference(changed(2), expected, ARGUMENTS, SEGMENTS) == "buffer 2"


def test_a_program_that_differs_at_a_point_gets_three_more():
    assert difference(changed(1, calls=3), expected, ARGUMENTS, SEGMENTS) is None
    assert difference(changed(1, calls=4), expected, ARGUMENTS, SEGMENTS) == "first"
