import torch
from hypothesis import given
from hypothesis import strategies as st

from fl.reproducibility.seeds import stream, torch_stream

PATHS = st.lists(st.one_of(st.integers(-5, 10**6), st.text(max_size=5)), max_size=4)


@given(st.integers(0, 2**63 - 1), PATHS)
def test_a_path_always_gives_the_same_stream(seed, path):
    first, second = stream(seed, *path), stream(seed, *path)
    assert (first.integers(2**63, size=4) == second.integers(2**63, size=4)).all()


@given(PATHS, PATHS)
def test_different_paths_give_different_streams(one, other):
    same = [(type(step), step) for step in one] == [(type(step), step) for step in other]
    equal = (
        stream(1, *one).integers(2**63, size=2) == stream(1, *other).integers(2**63, size=2)
    ).all()
    assert equal == same


def test_streams_are_the_same_on_every_machine():
    assert stream(1, "client", 3, "round", 7).integers(10**6, size=3).tolist() == [
        959688,
        817178,
        521341,
    ]
    drawn = torch.randint(10**6, (3,), generator=torch_stream(1, "init")).tolist()
    assert drawn == [771149, 278718, 23686]


def test_streams_leave_torch_s_global_generator_alone():
    before = torch.get_rng_state()
    torch.randn(3, generator=torch_stream(1, "init"))
    assert torch.equal(before, torch.get_rng_state())
