"""What means are taken of: positive scalars, standardized weights; and where it is refused."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl import load_model
from fl.config.parsing import ConfigError
from fl.nn import standardized_weights
from fl.nn.layers.convs import Kernel, StandardizedConv
from fl.server.journal import Journal
from fl.simulation import run
from strategies.serving.forms import SCALARS, standardized
from strategies.serving.server import Mean

VALUES = st.lists(st.tuples(st.floats(-20, 20), st.integers(1, 500)), min_size=1, max_size=6)
"""Logarithms of clients' scalars, with how many images each holds."""


def mean(kind: str, told) -> float:
    """Return the logarithm of the server's value."""
    found = Mean(forms={"log_a": SCALARS[kind]} if kind != "log" else {})
    for log, images in told:
        found.add({"log_a": np.array(log)}, float(images))
    return float(found.result()["log_a"])


@given(VALUES)
def test_log_is_the_geometric_mean_and_raw_the_arithmetic_one(told):
    total = sum(images for _, images in told)
    geometric = math.prod(math.exp(log) ** (images / total) for log, images in told)
    arithmetic = sum(math.exp(log) * images for log, images in told) / total
    assert math.exp(mean("log", told)) == pytest.approx(geometric, rel=1e-9)
    assert math.exp(mean("raw", told)) == pytest.approx(arithmetic, rel=1e-9)


@given(VALUES)
def test_softplus_is_between_and_all_are_between_the_clients(told):
    found = [mean(kind, told) for kind in ("log", "softplus", "raw")]
    ordered = [min(log for log, _ in told), *found, max(log for log, _ in told)]
    assert all(low <= high + 1e-9 for low, high in pairwise(ordered))


def test_softplus_by_pencil():
    """softplus(0) = log 2 and softplus(2) = log(1 + e²); their mean is softplus(1)."""
    a, b, middle = (math.log(1 + math.exp(u)) for u in (0, 2, 1))
    found = mean("softplus", [(math.log(a), 3), (math.log(b), 3)])
    assert math.exp(found) == pytest.approx(middle, rel=1e-12)


@pytest.mark.parametrize("kind", ["log", "raw", "softplus"])
@given(st.floats(-300, 300), st.lists(st.integers(1, 500), min_size=1, max_size=5))
def test_equal_values_give_that_value(kind, log, images):
    assert mean(kind, [(log, n) for n in images]) == pytest.approx(log, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("log", [-1e30, -745.0, 745.0, 1e30])
def test_a_mean_of_finite_logarithms_is_finite(kind, log):
    assert math.isfinite(mean(kind, [(log, 1), (0.0, 1)]))
    assert math.isfinite(mean(kind, [(log, 1)]))


def models(tiny, folder, **flat) -> dict[str, dict[str, np.ndarray]]:
    """Return the network after a round under each form."""
    found = {}
    for kind in ("log", "raw", "softplus"):
        apart = {"rounds": 1, "client.steps": 4, "client.activation-lr": 20.0}
        apart |= {"recipe": "salunet", "engine": "sequential", "state.scalars": kind, **flat}
        journal = Journal(folder / kind)
        run(tiny(apart), journal)
        found[kind] = journal.checkpoint().model
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm"])
def test_a_round_differs_in_these_scalars_only(tiny, tmp_path, strategy):
    found = models(tiny, tmp_path, **{"strategy.kind": strategy})
    names = {name for name in found["log"] if name.rpartition(".")[2].startswith("log_")}
    assert len(names) == 8
    for name in found["log"]:
        log, softplus, raw = (found[kind][name] for kind in ("log", "softplus", "raw"))
        if name in names:
            assert log <= softplus <= raw
            assert log < raw
        else:
            assert np.array_equal(log, raw)
            assert np.array_equal(log, softplus)


ROWS = st.tuples(st.integers(1, 4), st.integers(2, 9), st.integers(0, 99))
"""Outputs, weights that make one, and a seed."""


@given(ROWS, st.floats(0.01, 100), st.floats(-10, 10))
def test_standardized_rows_have_no_mean_and_one_length_whatever_theirs_was(shape, scale, shift):
    outputs, inputs, seed = shape
    weights = np.random.default_rng(seed).normal(size=(outputs, inputs, 3, 3))
    found = standardized(1e-30).of(weights).reshape(outputs, -1)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(np.square(found).sum(1), 1, rtol=1e-12)
    moved = standardized(1e-30).of(scale * weights + shift).reshape(outputs, -1)
    np.testing.assert_allclose(moved, found, atol=1e-10)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_layer_does_with_standardized_weights_what_it_did_with_its_own(scaled):
    layer = StandardizedConv(Kernel(2, 3, 4, 3), scaled).double()
    layer.EPS = 1e-12
    rng = np.random.default_rng(0)
    layer.weight.data = torch.from_numpy(rng.normal(5, 2, layer.weight.shape))
    x = torch.from_numpy(rng.normal(size=(2, 3, 6, 6)))
    before = layer(x)
    ((name, eps),) = standardized_weights(layer).items()
    assert name == "weight"
    layer.weight.data = torch.from_numpy(standardized(eps).of(layer.weight.detach().numpy()))
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-9)


def test_equal_weights_become_zeros_and_a_mean_has_its_type():
    mean = Mean(forms={"w": standardized(1e-5)})
    mean.add({"w": np.full((2, 3, 3, 3), 0.7, np.float32)}, 3.0)
    found = mean.result()["w"]
    assert found.dtype == np.float32
    assert not found.any()


def test_longer_weights_count_no_more():
    """Two clients whose weights differ in length alone have one mean, whoever is the longer."""
    weights = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    other = np.random.default_rng(1).normal(size=(2, 3, 4, 4))
    found = []
    for scale in (1.0, 50.0):
        mean = Mean(forms={"w": standardized(1e-30)})
        mean.add({"w": scale * weights}, 30.0)
        mean.add({"w": other}, 10.0)
        found.append(mean.result()["w"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)
    by_hand = 0.75 * standardized(1e-30).of(weights) + 0.25 * standardized(1e-30).of(other)
    np.testing.assert_allclose(found[0], by_hand, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("recipe", ["nf", "ws-groupnorm", "groupnorm"])
def test_a_round_differs_in_standardized_weights_only(tiny, tmp_path, recipe, engine):
    found, names = {}, set()
    for kind in ("raw", "standardized"):
        knobs = tiny({"recipe": recipe, "rounds": 1, "engine": engine, "state.weights": kind})
        journal = Journal(tmp_path / kind)
        run(knobs, journal)
        found[kind] = journal.checkpoint().model
        names = set(standardized_weights(load_model(tmp_path / kind).network))
    assert bool(names) == (recipe != "groupnorm")
    for name, raw in found["raw"].items():
        assert np.array_equal(raw, found["standardized"][name]) == (name not in names)


@pytest.mark.parametrize(
    ("flat", "told"),
    [
        ({"strategy.kind": "scaffold"}, "strategy.kind=scaffold"),
        ({"strategy.kind": "fedmedian"}, "strategy.kind=fedmedian"),
        ({"privacy.kind": "server", "privacy.clip": 1.0}, "privacy.kind=server"),
    ],
)
@pytest.mark.parametrize("asked", ["state.scalars=raw", "state.weights=standardized"])
def test_what_sees_more_than_the_mean_is_refused(tiny, tmp_path, flat, told, asked):
    key, _, value = asked.partition("=")
    knobs = tiny({"recipe": "salunet", key: value, **flat})
    with pytest.raises(ConfigError) as error:
        run(knobs, Journal(tmp_path / "run"))
    expected = (
        f"{asked} is for strategies of ours that see the clients' mean only, without "
        f"noise, found {told}; leave {key} out"
    )
    assert str(error.value) == expected
    assert not (tmp_path / "run").exists()


def test_the_default_leaves_the_identity_as_it_was(tiny):
    knobs = tiny({"recipe": "salunet"})
    assert knobs.replace({"state.scalars": "log"}).identity == knobs.identity
    assert knobs.replace({"state.scalars": "raw"}).identity != knobs.identity
    assert knobs.replace({"state.weights": "raw"}).identity == knobs.identity
    assert knobs.replace({"state.weights": "standardized"}).identity != knobs.identity
