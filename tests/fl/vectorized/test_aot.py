"""Programs: what a graph does, and found again by all that makes a difference."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fl.vectorized import aot
from fl.vectorized.graph_cache import Graph

# PyTorch's own, of modules that tracing and compiling import.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    for cache in ("TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(cache, str(tmp_path))


def traced(factors, x):
    factors = torch.tensor(factors)
    return Graph.of(make_fx(lambda x: [(x * factors).exp(), x.sum()])(x))


def test_the_place_of_a_program_depends_on_operators_constants_and_forms(monkeypatch):
    x = torch.ones(2)
    place = aot._program_folder(traced([1.0, 2.0], x), (x,))
    assert place == aot._program_folder(traced([1.0, 2.0], x), (x,))
    others = [
        aot._program_folder(traced([1.0, 3.0], x), (x,)),
        aot._program_folder(Graph.of(make_fx(lambda x: [x.exp()])(x)), (x,)),
        aot._program_folder(traced([1.0, 2.0], x), (torch.ones(3, 2),)),
        aot._program_folder(traced([1.0, 2.0], x), (x.double(),)),
    ]
    monkeypatch.setattr(aot, "processor", lambda: "another")
    others.append(aot._program_folder(traced([1.0, 2.0], x), (x,)))
    monkeypatch.setattr(aot, "compiler", lambda: ["another"])
    others.append(aot._program_folder(traced([1.0, 2.0], x), (x,)))
    assert len({place, *others}) == 7


@pytest.mark.slow
def test_a_program_does_what_its_graph_does_and_is_compiled_once(monkeypatch):
    x = torch.randn(5)
    graph = traced([1.0, 2.0, 3.0, 4.0, 5.0], x)
    program = aot.compile_ahead_of_time(graph, (x,))
    for found, expected in zip(program(-x), graph.module()(-x), strict=True):
        torch.testing.assert_close(found, expected)
    make, calls = aot._compile, []
    monkeypatch.setattr(aot, "_compile", lambda *a: calls.append(a) or make(*a))
    again = aot.compile_ahead_of_time(graph, (x,))
    assert all(map(torch.equal, again(x), program(x)))
    assert not calls
    (library,) = aot._program_folder(graph, (x,)).rglob("*.wrapper.so")
    library.unlink()
    mended = aot.compile_ahead_of_time(graph, (x,))
    assert all(map(torch.equal, mended(x), program(x)))
    assert len(calls) == 1
