"""The promise of a run's noise: its ε against closed forms, and what breaks it."""

import math
import sys

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as draw

from fl.reproducibility.seeds import torch_stream
from fl.server.app import serve
from fl.server.journal import Journal
from fl.simulation.grid import InlineGrid
from fl.training.accounting import composed_epsilon, sampled_epsilon, told
from fl.training.parameters import as_shared, build_network
from strategies.bounds import clipped

PRIVATE = {"privacy.kind": "server", "privacy.noise": 2.0}
EXAMPLES = {"privacy.per-example-clip": 1.0, "privacy.per-example-noise": 2.0}
LINES = [{"round": n, "replied": 2 * (n > 0), "devices": 5} for n in range(4)]
ACCOUNTS = [
    {"round": n, "partition": partition, "epochs": 2, "held": 100}
    for n, partition in [(1, 0), (1, 3), (2, 0), (2, 4), (3, 1), (3, 4)]
]


def normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def delta_of(noise: float, epsilon: float) -> float:
    """Theorem 8 of Balle and Wang (arXiv 1805.06530), with a sensitivity of 1."""
    half = 1 / (2 * noise)
    return normal(half - epsilon * noise) - math.exp(epsilon) * normal(-half - epsilon * noise)


def promises(knobs, lines=LINES, accounts=ACCOUNTS):
    network = build_network(knobs, torch_stream(1, "init"))
    return told(knobs, network, lines, accounts).get("privacy", [])


@given(noise=draw.floats(0.3, 20), power=draw.floats(1.0, 8.0))
def test_one_gaussian_has_the_closed_form_of_balle_and_wang(noise, power):
    delta = 10**-power
    epsilon = composed_epsilon(noise, 1, delta)
    if epsilon:
        assert delta_of(noise, epsilon) == pytest.approx(delta, rel=1e-4)
    else:
        assert delta_of(noise, 0.0) <= delta


@pytest.mark.parametrize(("noise", "times"), [(1.0, 2), (5.0, 50)])
def test_several_are_what_a_privacy_loss_distribution_composes(noise, times):
    theirs = PLDAccountant().compose(GaussianDpEvent(noise), times).get_epsilon(1e-5)
    assert composed_epsilon(noise, times, 1e-5) == pytest.approx(theirs, rel=1e-3)


def test_all_clients_a_round_leave_the_closed_form_of_renyi_accounting():
    noise, rounds, delta = 3.0, 7, 1e-5
    found = sampled_epsilon(noise, 10, 10, rounds, delta)
    orders = np.linspace(1.01, 200, 100_000)
    renyi = rounds * orders / (2 * noise**2)
    # Proposition 12 of Canonne, Kamath and Steinke (arXiv 2004.00010), from Rényi's to ε.
    converted = renyi + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)
    assert found == pytest.approx(converted.min(), rel=0.01)
    assert found >= composed_epsilon(noise, rounds, delta)


def test_secret_sampling_is_bounded_by_its_exact_value_for_one_round():
    noise, asked, clients, delta = 1.0, 100, 1000, 1e-6
    found, share = sampled_epsilon(noise, asked, clients, 1, delta), asked / clients
    # Theorem 11 of Balle, Barthe and Gaboardi (arXiv 1807.01647): what a drawn subset loses.
    whole = math.log1p(math.expm1(found) / share)
    assert share * delta_of(noise, whole) <= delta * (1 + 1e-9)
    assert found < composed_epsilon(noise, 1, delta)
    assert found <= sampled_epsilon(noise, asked, clients, 2, delta)


def test_replacing_one_update_moves_the_sum_by_twice_the_clip_and_never_by_more():
    rng, zero = np.random.default_rng(0), {"w": np.zeros(3)}
    norm = 0.7
    ends = [clipped({"w": rng.normal(0, 5, 3)}, zero, norm, ["w"])["w"] for _ in range(200)]
    apart = max(float(np.linalg.norm(a - b)) for a in ends for b in ends)
    assert 1.9 * norm < apart <= 2 * norm * (1 + 1e-12)


def test_clients_are_promised_what_their_own_rounds_compose_to(tiny):
    (found,) = promises(tiny({**PRIVATE, "rounds": 3}))
    delta = 5**-1.1
    assert (found["of"], found["times"], found["delta"]) == ("clients", 2, delta)
    assert found["epsilon"] == composed_epsilon(1.0, 2, delta)  # 2C: half the multiplier
    secret = sampled_epsilon(1.0, 2, 5, 3, delta)
    assert found["epsilon_secret"] == min(found["epsilon"], secret)
    assert any("2 of 3 rounds" in text for text in found["assumes"])
    assert any("seed" in text for text in found["assumes"])
    system = {"privacy.noise-from": "system", "privacy.delta": 1e-3}
    (other,) = promises(tiny({**PRIVATE, **system}))
    assert other["epsilon"] == composed_epsilon(1.0, 2, 1e-3)
    assert not any("seed" in text for text in other["assumes"])


def test_clients_that_never_take_part_hide_nobody(tiny):
    flat = {**PRIVATE, "rounds": 3, "partition.unseen": 0.4, "partition.held-out": 0.2}
    (found,) = promises(tiny(flat))
    secret = sampled_epsilon(1.0, 2, 3, 3, 5**-1.1)  # two of three are drawn, not two of five
    assert found["epsilon_secret"] == min(found["epsilon"], secret)


def test_sampling_is_not_counted_where_not_all_clients_could_be_drawn(tiny):
    fewer = [*LINES[:-1], {**LINES[-1], "devices": 4}]
    assert promises(tiny(PRIVATE), fewer)[0]["epsilon_secret"] is None
    part = {**PRIVATE, "fleet.availability": 0.5}
    assert promises(tiny(part))[0]["epsilon_secret"] is None


def test_examples_are_promised_what_passes_over_them_compose_to(tiny):
    (found,) = promises(tiny(EXAMPLES))
    delta = 400**-1.1  # four clients of 100 took part
    assert (found["of"], found["times"], found["delta"]) == ("examples", 4, delta)
    assert found["epsilon"] == composed_epsilon(1.0, 4, delta)
    assert found["epsilon_secret"] is None


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({**PRIVATE, "privacy.noise": 0.0}, "adds no noise"),
        ({**PRIVATE, "recipe": "batchnorm"}, "running_mean are averaged without noise"),
        ({**PRIVATE, "strategy.max-norm": 9.0}, "strategy.max-norm refuses"),
        ({**PRIVATE, "fleet.speeds": "lognormal:9:1", "fleet.deadline": 9.0}, "fleet.deadline"),
        ({**EXAMPLES, "privacy.per-example-noise": 0.0}, "adds no noise"),
        ({**EXAMPLES, "task.class-weights": "balanced"}, "knows what else its client holds"),
        ({**EXAMPLES, "strategy.kind": "flwr.serverapp.strategy:FedAvg"}, "may use losses"),
    ],
)
def test_what_breaks_the_promise_is_said_and_no_number_is(tiny, flat, words):
    (found,) = promises(tiny(flat))
    assert found["epsilon"] is None
    assert words in found["why"]
    assert words in found["text"]
    assert "\n" not in found["text"]


def test_batchnorm_s_statistics_that_stay_or_are_not_there_break_nothing(tiny):
    for policy in ("local", "drop"):
        knobs = tiny({**PRIVATE, "recipe": "batchnorm", "state.bn": policy})
        network = build_network(as_shared(knobs), torch_stream(1, "init"))
        (found,) = told(knobs, network, LINES, ACCOUNTS)["privacy"]
        assert found["epsilon"] > 0


def test_without_dp_accounting_there_is_no_number_but_the_way_to_one(tiny, monkeypatch):
    for name in ("dp_accounting", "dp_accounting.gaussian_mechanism"):
        monkeypatch.setitem(sys.modules, name, None)
    for flat in (PRIVATE, EXAMPLES):
        (found,) = promises(tiny(flat))
        assert found["epsilon"] is None
        assert "pip install 'fednf[privacy]'" in found["why"]


def test_a_run_ends_with_its_promise_and_one_without_noise_with_none(tiny, tmp_path):
    knobs = tiny({"rounds": 1, "sampling.clients": 5, **PRIVATE})
    result = serve(InlineGrid(knobs), knobs, Journal(tmp_path / "run"), started_by={})
    (found,) = result["privacy"]
    assert found["epsilon"] == composed_epsilon(1.0, 1, 5**-1.1)
    assert found["text"].startswith(f"epsilon {found['epsilon']:.4g} for clients")
    assert promises(tiny()) == []
