"""Lines through seconds and clients."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.bench.growth import Line, lines


def case(name: str, clients: int, seconds: float, **given: int) -> dict:
    row = {"seconds_per_round": {"median": seconds}}
    knobs = {"recipe": "none", "network.width": "auto", "vectorized.lanes": "auto"}
    return {
        "job": name,
        "knobs": knobs | {key.replace("_", "."): value for key, value in given.items()},
        "batch_size": 1,
        "clients": clients,
        "contenders": {"loop": row},
    }


@given(
    st.floats(0.01, 10),
    st.floats(1e-5, 1),
    st.lists(st.integers(1, 10_000), min_size=3, unique=True),
)
def test_what_grows_linearly_is_found_again(fixed, each, clients):
    line = Line.through(clients, [fixed + each * n for n in clients])
    assert all(abs(residual) < 1e-6 for residual in line.residuals)
    assert line.fixed + line.each * clients[0] == pytest.approx(fixed + each * clients[0])


def test_what_grows_faster_shows_in_the_residuals():
    line = Line.through([10, 100, 1000], [0.1, 1, 100])
    assert max(map(abs, line.residuals)) > 0.3


def test_fewer_than_three_numbers_of_clients_have_no_line():
    cases = [case("cnn", n, n / 100) for n in (10, 100, 1000)] + [case("mlp", 10, 1.0)]
    (((title, name), (clients, line)),) = lines(cases).items()
    assert (title, name, clients) == ("cnn, none, batch size 1", "loop", [10, 100, 1000])
    assert line.each == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("knob", "titles"),
    [
        ("network_width", ["cnn, none, width 1, batch size 1", "cnn, none, width 2, batch size 1"]),
        (
            "vectorized_lanes",
            ["cnn, none, batch size 1, 1 lanes", "cnn, none, batch size 1, 2 lanes"],
        ),
    ],
)
def test_every_width_and_number_of_lanes_has_a_line_of_its_own(knob, titles):
    cases = [case("cnn", n, n / 100 * k, **{knob: k}) for n in (10, 20, 30) for k in (1, 2)]
    found = {title: line.each for (title, _), (_, line) in lines(cases).items()}
    assert found == pytest.approx(dict(zip(titles, (0.01, 0.02), strict=True)))
