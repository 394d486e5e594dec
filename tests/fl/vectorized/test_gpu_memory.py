"""How many lanes are said to fit into memory."""

import pytest

from fl.data import load
from fl.reproducibility.seeds import torch_stream
from fl.simulation.engine import _CPU, _GPU, _lanes
from fl.training import parameters
from fl.vectorized import gpu_memory


@pytest.mark.parametrize("images", [1, 5])
def test_lanes_are_as_many_as_half_of_the_memory_holds(tiny, images):
    knobs = tiny({"device": "cpu", "network.depth": 2, "recipe": "none"})
    network, form = (
        parameters.build_network(knobs, torch_stream(1, "init")),
        load(knobs.data.name).form,
    )
    lanes = [
        gpu_memory.lanes_that_fit(network, form, images, 1, free) for free in (0, 10**8, 10**9)
    ]
    assert lanes[0] == 1
    assert lanes[2] == pytest.approx(10 * lanes[1], rel=0.01)
    # A lane has its weights many times, and its images' maps: 4 channels of 28 x 28 numbers.
    least = 12 * network.weights.nbytes + images * 4 * 28 * 28 * 4
    assert 0.5e9 / 20 / least < lanes[2] < 0.5e9 / least


def test_every_padded_size_takes_its_own(tiny):
    network = parameters.build_network(tiny({"device": "cpu"}), torch_stream(1, "init"))
    form = load("fashion-mnist-small").form
    one, four = (gpu_memory.lanes_that_fit(network, form, 8, passes, 10**9) for passes in (1, 4))
    assert 3 * four < one <= 4 * four + 4


@pytest.mark.parametrize(
    ("clients", "most", "limits", "lanes"),
    [
        (10, 16, _CPU, 10),
        (50, 16, _CPU, 16),  # three full passes, and one over two lanes
        (50, 1000, _GPU, 50),
        (100, 64, _GPU, 50),
        (100, 40, _GPU, 34),
    ],
)
def test_how_many_lanes_equal_clients_get(clients, most, limits, lanes):
    assert _lanes([7] * clients, 1, most, limits) == lanes
