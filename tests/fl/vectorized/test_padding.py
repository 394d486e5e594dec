import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.config import Experiment
from fl.data import deal, share
from fl.fleet import batch_size
from fl.vectorized.padding import fewest_rows, halves, multiples_of_eight, padded_sizes


def tiny(**knobs) -> Experiment:
    return Experiment.from_flat(
        {name.replace("__", ".").replace("_", "-"): value for name, value in knobs.items()}
    )


@given(st.integers(1, 100))
def test_multiples_are_near_each_size_and_few(size):
    found = multiples_of_eight(size)
    assert found[-1] == size
    assert len(found) == -(-size // 8)
    assert all(min(s for s in found if s >= images) - images < 8 for images in range(1, size + 1))


@given(st.integers(1, 1000))
def test_halves_are_few_and_less_than_half_of_a_pass_is_idle(lanes):
    found = halves(lanes)
    assert (found[0], found[-1], len(found)) == (lanes, 1, lanes.bit_length())
    assert all(busy <= fewest_rows(lanes, busy) < 2 * busy for busy in range(1, lanes + 1))


@pytest.mark.parametrize(
    ("knobs", "size", "expected"),
    [
        # 5,000 images: 50 a client are 32 and 18.
        ({"partition__kind": "iid", "partition__clients": 100}, 32, (18, 32)),
        ({"partition__kind": "iid", "partition__clients": 100}, 25, (25,)),
        # 151 or 152 a client: 23 and 24 would be two for one.
        ({"partition__kind": "iid", "partition__clients": 33}, 32, (24, 32)),
        ({"partition__kind": "dirichlet", "partition__clients": 100}, 32, (8, 16, 24, 32)),
        ({"partition__kind": "dirichlet", "partition__clients": 100}, 4, (4,)),
    ],
)
def test_sizes_are_exact_where_those_are_few(knobs, size, expected):
    assert padded_sizes(tiny(client__batch_size=size, **knobs), size) == expected


def test_a_memory_tier_has_its_own_and_held_out_images_do_not_count():
    knobs = tiny(
        partition__kind="iid", partition__clients=20, partition__held_out=0.1,
        fleet__memory="4:0.5,32:0.5",
    )  # fmt: skip
    left = {
        len(share({"partition-id": n}, knobs).train) % 32
        for n in range(20) if batch_size(knobs, n) == 32
    }  # fmt: skip
    assert set(padded_sizes(knobs, 32)) == left | {32}
    assert left != {len(part) % 32 for part in deal(knobs)}
    assert padded_sizes(knobs, 4) == (4,)
