"""What is told of an exception: the user's line, and no more of libraries than leads there."""

import json

import pytest
import torch

from fl.server.failures import Failure


def failure(call) -> Failure:
    try:
        call()
    except BaseException as error:
        return Failure.of(error)
    raise AssertionError


def mine():
    return torch.ones(2, 3) @ torch.ones(2, 3)


def in_a_library():
    json.loads("{")


def a_group():
    try:
        mine()
    except RuntimeError as error:
        raise ExceptionGroup("all", [error]) from None


def with_a_trace_in_its_message():
    raise ValueError("Traceback (most recent call last):\n  somebody else's")


@pytest.mark.parametrize(
    ("call", "innermost", "below"),
    [
        (mine, mine, 1),
        (in_a_library, in_a_library, 1),
        (a_group, mine, 1),
        (with_a_trace_in_its_message, with_a_trace_in_its_message, 1),
    ],
)
def test_the_place_is_the_innermost_line_of_the_user_s(call, innermost, below):
    line = innermost.__code__.co_firstlineno + below
    assert failure(call).place == f"{__file__}:{line}"


def test_the_short_traceback_ends_with_the_user_s_frame_and_the_error():
    short = failure(in_a_library).short
    assert "json/decoder.py" in failure(in_a_library).trace
    assert "json/" not in short
    assert short.rstrip().splitlines()[-1].startswith("json.decoder.JSONDecodeError: Expecting")
    assert short.count("test_failures.py") == 2


def test_without_a_frame_of_the_user_s_all_is_told():
    told = Failure("X: y", "X: y\n", bug=True)
    assert (told.place, told.short) == ("no traceback", "X: y\n")
