"""What anybody's function has dealt is a deal, or is refused in a line that says who and what."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from partitions.deal.check import check_deal


@st.composite
def deals(draw):
    """Disjoint parts of some examples, any of them nobody's, and no client without one."""
    examples = draw(st.integers(1, 60))
    clients = draw(st.integers(1, min(examples, 8)))
    order = draw(st.permutations(range(examples)))
    owners = draw(st.lists(st.integers(-1, clients - 1), min_size=examples, max_size=examples))
    owners[:clients] = range(clients)
    parts = [
        [e for e, owner in zip(order, owners, strict=True) if owner == k] for k in range(clients)
    ]
    return examples, parts


@given(deals(), st.sampled_from([list, np.array, tuple, lambda part: np.array(part, np.uint8)]))
@settings(deadline=None)
def test_a_deal_passes_as_it_is(deal, kind):
    examples, parts = deal
    found = check_deal(list(map(kind, parts)), examples, len(parts), min_size=10)
    assert [part.tolist() for part in found] == parts
    assert {part.dtype for part in found} == {np.dtype(np.int64)}


@given(deals(), st.data())
@settings(deadline=None)
def test_an_example_that_is_dealt_again_is_named_with_who_has_it(deal, data):
    examples, parts = deal
    first, second = (data.draw(st.integers(0, len(parts) - 1)) for _ in range(2))
    again = data.draw(st.sampled_from(parts[first]))
    parts[second] = [*parts[second], again]
    whose = (
        f"client {first} twice"
        if first == second
        else "clients {} and {}".format(*sorted((first, second)))
    )
    with pytest.raises(ValueError, match=f"^example {again} is dealt to {whose};"):
        check_deal(parts, examples, len(parts), min_size=0)


@given(deals(), st.data(), st.integers(0, 99), st.booleans())
@settings(deadline=None)
def test_an_example_that_there_is_none_of_is_named_with_its_client(deal, data, beyond, below):
    examples, parts = deal
    client = data.draw(st.integers(0, len(parts) - 1))
    odd = -1 - beyond if below else examples + beyond
    parts[client] = [*parts[client], odd]
    with pytest.raises(ValueError, match=f"^client {client} has the example {odd}, but"):
        check_deal(parts, examples, len(parts), min_size=0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, "it returned NoneType, expected a list of 3 index arrays"),
        ({0: [1]}, "it returned dict"),
        ([[0], [1]], "it returned 2 index arrays for 3 clients"),
        ([[0], [1], [2.0]], "client 2 has float64 values, expected indices"),
        ([[0], [1], [False, True]], "client 2 has bool values.*np.flatnonzero"),
        ([[0], [[1, 2]], [3]], r"client 1 has an array of shape \(1, 2\)"),
        ([[0], 1, [3]], r"client 1 has an array of shape \(\)"),
        ([[0], [[1], [2, 3]], [3]], "client 1 has a ragged list"),
        ([[0], [], [1]], "client 1 has no example; .*partition.min-size to 0"),
    ],
)
def test_what_is_no_deal_is_refused_in_one_line(parts, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        check_deal(parts, 9, 3, min_size=1)
    assert "\n" not in str(error.value)


def test_a_client_may_be_empty_where_that_is_asked_for():
    found = check_deal([[0], [], [1]], 9, 3, min_size=0)
    assert [part.tolist() for part in found] == [[0], [], [1]]
