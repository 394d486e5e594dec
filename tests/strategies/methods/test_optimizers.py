"""Server optimizers: three steps by hand, what they are equal to, Flower's, and the same bytes."""

import numpy as np
import pytest

from fl.config.parsing import ConfigError
from fl.messages.strategy import strategy_of
from fl.server.journal import Journal
from fl.server.watching.callback import CallbackFailed
from fl.simulation import run
from strategies import STRATEGIES, find
from strategies.flower import flowers
from strategies.making import is_flowers, made
from strategies.strategy import Clients, Gathered, Reply
from tests.callbacks import EachRound
from tests.conftest import ENGINES

SLOW = pytest.mark.slow
QUICK = {
    "partition.kind": "iid",
    "partition.clients": 200,
    "sampling.clients": 3,
    "engine": "sequential",
    "recipe": "batchnorm",
    "network.width": 2,
    "rounds": 2,
}
OWN = {
    "fedavg": {"eta": 0.5},
    "fedavgm": {"eta": 0.5, "beta": 0.7},
    "fedadagrad": {"eta": 0.1, "beta_1": 0.3},
    "fedadam": {"eta": 0.2, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01},
    "fedyogi": {"eta": 0.2, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01},
    "fedexp": {"epsilon": 0.01},
}


def replies(rng: np.random.Generator, spread: float) -> list[Reply]:
    centre = rng.normal(size=4)
    found = [centre + spread * rng.normal(size=4) for _ in range(3)]
    return [Reply(k, n, 1, 0.0, {}, lambda k=k: found[k]) for k, n in enumerate((10, 20, 70))]


def by_hand(kind: str, rounds: list[list[Reply]], start: np.ndarray) -> list[np.ndarray]:
    """Return the parameters after each round, as the papers' formulas have them."""
    own, x, found = OWN[kind], start, []
    m = v = np.zeros(4)
    for given in rounds:
        p = np.array([reply.examples for reply in given]) / 100
        moves = np.array([reply.weights - x for reply in given])
        delta = p @ moves
        if kind == "fedavg":
            x = x + own["eta"] * delta
        elif kind == "fedavgm":
            v = own["beta"] * v - delta
            x = x - own["eta"] * v
        elif kind == "fedexp":
            eta = (p @ (moves**2).sum(1)) / (2 * ((delta**2).sum() + own["epsilon"]))
            x = x + max(1, eta) * delta
        else:
            m = own["beta_1"] * m + (1 - own["beta_1"]) * delta
            if kind == "fedadagrad":
                v = v + delta**2
            elif kind == "fedadam":
                v = own["beta_2"] * v + (1 - own["beta_2"]) * delta**2
            else:
                v = v - (1 - own["beta_2"]) * delta**2 * np.sign(v - delta**2)
            x = x + own["eta"] * m / (np.sqrt(v) + own.get("tau", 1e-3))
        found.append(x)
    return found


def played(kind: str, own: dict, rounds: list[list[Reply]], start: np.ndarray) -> list[np.ndarray]:
    """Return the same as the strategy has them."""
    strategy, state, found = made(find(kind), own), {}, []
    for number, given in enumerate(rounds, 1):
        gathered = Gathered(number, 9, start, state)
        for reply in given:
            strategy.receive(gathered, reply)
        weights = [strategy.weight(reply) for reply in given]
        gathered.mean = np.average([reply.weights for reply in given], axis=0, weights=weights)
        start = strategy.aggregate(gathered)
        found.append(start)
    return found


@pytest.mark.parametrize("kind", OWN)
def test_the_first_three_steps_are_those_by_hand(kind):
    rng = np.random.default_rng(1)
    rounds = [replies(rng, spread) for spread in (0.1, 10.0, 1.0)]
    start = rng.normal(size=4)
    expected = by_hand(kind, rounds, start)
    for mine, wanted in zip(played(kind, OWN[kind], rounds, start), expected, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-13)
    gaps = [abs(a - b).max() for a, b in zip(expected[1:], expected, strict=False)]
    assert min(gaps) > 1e-3


@pytest.mark.parametrize(("kind", "own"), [("fedavg", {}), ("fedavgm", {"beta": 0.0})])
def test_with_a_rate_of_1_and_no_momentum_it_is_the_mean_bit_for_bit(kind, own):
    rng = np.random.default_rng(2)
    rounds = [replies(rng, 1.0) for _ in range(3)]
    expected = [
        np.average([r.weights for r in given], axis=0, weights=[10, 20, 70]) for given in rounds
    ]
    found = played(kind, own, rounds, rng.normal(size=4) * 1e6)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_fedexp_s_rate_is_the_paper_s_where_all_hold_as_much():
    moves = np.random.default_rng(3).normal(size=(3, 4))
    given = [Reply(k, 7, 1, 0.0, {}, lambda k=k: 1 + moves[k]) for k in range(3)]
    mean = moves.mean(0)
    eta = (moves**2).sum() / (2 * 3 * ((mean**2).sum() + 0.01))
    assert eta > 1
    found = played("fedexp", {"epsilon": 0.01}, [given], np.ones(4))[0]
    np.testing.assert_allclose(found, 1 + eta * mean, rtol=1e-12)


def test_fedexp_is_fedavg_where_clients_agree():
    start, there = np.zeros(4), np.array([3.0, -1.0, 2.0, 5.0])
    given = [Reply(k, n, 1, 0.0, {}, lambda: there) for k, n in enumerate((10, 90))]
    assert np.array_equal(played("fedexp", {}, [given], start)[0], there)


@pytest.fixture
def of(tiny):
    def make(kind: str, own: dict, flat: dict | None = None):
        options = {f"strategy.options.{name}": value for name, value in own.items()}
        return tiny({**QUICK, "strategy.kind": kind, **options, **(flat or {})})

    return make


@SLOW
@pytest.mark.parametrize("engine", ENGINES)
def test_the_rate_of_1_is_fedavg_s_run(of, tiny, tmp_path, engine):
    flat = ENGINES[engine]
    plain = run(tiny({**QUICK, **flat}), Journal(tmp_path / "plain"))["model_sha256"]
    for kind, own in (("fedavg", {"eta": 1.0}), ("fedavgm", {"beta": 0.0})):
        assert run(of(kind, own, flat), Journal(tmp_path / kind))["model_sha256"] == plain


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_round_of_scaffold_is_fedavg_s_where_all_hold_as_much(of, tmp_path, engine):
    found = [
        run(of(kind, {}, {**ENGINES[engine], "rounds": 1}), Journal(tmp_path / kind))
        for kind in ("scaffold", "fedavg")
    ]
    assert found[0]["model_sha256"] == found[1]["model_sha256"]


def stop(line) -> None:
    if line["round"] == 1:
        raise ValueError


@pytest.mark.parametrize("kind", ["fedadam", pytest.param("fedavgm", marks=SLOW)])
def test_a_run_is_resumed_to_the_byte_and_leaves_statistics_to_the_mean(of, tiny, tmp_path, kind):
    knobs, part = of(kind, OWN[kind]), Journal(tmp_path / "part")
    whole = run(knobs, Journal(tmp_path / "whole"))
    with pytest.raises(CallbackFailed):
        run(knobs, part, callbacks=[EachRound(stop)])
    mine, mean = part.checkpoint().model, Journal(tmp_path / "mean")
    assert run(knobs, part, resume=True)["model_sha256"] == whole["model_sha256"]
    run(tiny({**QUICK, "rounds": 1}), mean)
    plain = mean.checkpoint().model
    kept = [name for name in plain if "running" in name or "tracked" in name]
    assert kept
    assert all(np.array_equal(mine[name], plain[name]) for name in kept)
    assert any(not np.array_equal(mine[name], plain[name]) for name in plain.keys() - set(kept))


THEIRS = {
    "FedYogi": ({"eta": 0.02}, {"eta": 0.02}, 2),
    "FedAdagrad": ({"eta": 0.02}, {"eta": 0.02}, 2),
    "FedAvgM": ({"server_learning_rate": 0.5, "server_momentum": 0.7}, OWN["fedavgm"], 3),
    "FedAdam": (
        {"eta": 0.02, "beta_1": 0.9, "beta_2": 0.99},
        # Flower's has a rate of its own in each round; this is that of the first.
        {"eta": 0.02 * (1 - 0.99**2) ** 0.5 / (1 - 0.9**2), "beta_1": 0.9, "beta_2": 0.99},
        1,
    ),
}


@pytest.mark.parametrize(
    "name", ["FedAdam", *(pytest.param(n, marks=SLOW) for n in ("FedYogi", "FedAvgM"))]
)
def test_flower_s_is_ours_up_to_rounding(of, tmp_path, name):
    theirs, own, rounds = THEIRS[name]
    models = []
    for kind, options in ((f"flwr.serverapp.strategy:{name}", theirs), (name.lower(), own)):
        journal = Journal(tmp_path / kind.replace(":", "_"))
        run(of(kind, options, {"rounds": rounds, "recipe": "none"}), journal)
        models.append(journal.checkpoint().model)
    for key, array in models[0].items():
        np.testing.assert_allclose(models[1][key], array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("flat", "says"),
    [
        ({"strategy.kind": "fedadm"}, "strategy.kind=fedadm: should be fedavg, fedprox"),
        ({"strategy.kind": "fedprox", "strategy.options.mu": 0.1}, "the knob strategy.mu"),
        ({"strategy.kind": "fedadam", "strategy.options.eat": 0.1}, "did you mean eta?"),
        ({"strategy.kind": "fedadam", "strategy.options.eta": 0.0}, "eta=0 should be a number"),
        ({"strategy.kind": "fedavgm", "strategy.options.beta": 1.0}, "beta=1 should be a number"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tiny, flat, says):
    with pytest.raises(ConfigError, match=says) as refused:
        strategy_of(tiny(flat))
    assert "\n" not in str(refused.value)


def test_a_server_that_looks_at_single_replies_is_not_private(of, tmp_path):
    knobs = of("fedexp", {}, {"privacy.kind": "server", "recipe": "none"})
    with pytest.raises(ConfigError, match="looks at single"):
        run(knobs, Journal(tmp_path))


def test_every_name_leads_to_a_strategy():
    for kind, place in STRATEGIES.items():
        found = find(kind)
        assert found.__name__.lower() == kind == place.split(":")[1].lower()
        ours = not is_flowers(found)
        assert made(found, {}) if ours else flowers(found, {}, Clients(10, 1, float))
