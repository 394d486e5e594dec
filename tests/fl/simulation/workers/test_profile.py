"""A profile: what is noted of a run's workers, and that noting changes nothing."""

from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.drawing.timeline import in_lanes, timeline
from fl.client.spans import Span
from fl.server.journal import Journal
from fl.simulation import run, worker_pool
from fl.simulation.worker_pool import PoolGrid
from fl.simulation.workers.profile import SERVER, Profile
from tests.conftest import ENGINES
from tests.fl.simulation.test_worker_pool import FakePool, choice, requests

HOW = [(1, {}), (1, ENGINES["vectorized"]), pytest.param(2, {}, marks=pytest.mark.slow)]
HOW += [pytest.param(2, ENGINES["vectorized"], marks=pytest.mark.slow)]
QUERIES = {"recipe": "batchnorm", "state.bn": "recalibrate"}


@pytest.mark.parametrize(("workers", "engine"), HOW)
def test_every_client_of_a_run_is_noted_within_its_worker_s_time(
    tiny, tmp_path, monkeypatch, workers, engine
):
    monkeypatch.setattr(worker_pool, "cores", lambda: 1)  # else this process may evaluate it all
    knobs = tiny({"rounds": 3, "sampling.clients": 4, "engine": "sequential", **QUERIES, **engine})
    journal, profile = Journal(tmp_path / "noted"), Profile()
    noted = run(knobs, journal, workers=workers, profile=profile)
    plain = run(knobs, Journal(tmp_path / "plain"), workers=workers)
    assert noted["model_sha256"] == plain["model_sha256"]
    spans = {n: spans for n, spans in profile.spans.items() if n != SERVER}
    assert profile.workers == workers == len(spans)
    clients = [span for span in chain(*spans.values()) if span.what == "client"]
    trained = [(span.round, span.partition) for span in clients]
    assert sorted(trained) == sorted((c["round"], c["partition"]) for c in journal.clients())
    for of_worker in spans.values():
        whole = [span for span in of_worker if span.what == "train"]
        for client in (span for span in of_worker if span.what == "client"):
            assert any(w.begun <= client.begun < client.ended <= w.ended for w in whole)
        busy = [span for span in of_worker if span.what != "client"]
        busy.sort(key=lambda span: span.begun)
        assert all(one.ended <= next_one.begun for one, next_one in pairwise(busy))
    assert list(profile.begins) == [1, 2, 3]
    for rounds in (range(1, 2), range(2, 4), range(1, 4)):
        found = profile.shares(rounds)
        assert min(found.train, found.query, found.evaluate) > 0
        assert found.train + found.query + found.evaluate + found.wait == pytest.approx(1)
    found = profile.shares(range(2, 4))
    assert 0.5 < found.lanes <= (2 if engine else 1)


def test_clients_that_fail_are_noted_and_pools_pass_on_what_their_workers_noted(tiny):
    flat = {"engine": "sequential", "faults.kind": "exception", "faults.share": 1.0}
    profile = Profile()
    grid = PoolGrid(choice(knobs := tiny(flat)), FakePool(2), profile=profile)
    replies = list(grid.send_and_receive(asked := requests(grid, knobs)))
    assert all(reply.has_error() for reply in replies)
    spans = [span for spans in profile.spans.values() for span in spans]
    assert profile.workers == 2
    assert sorted(s.partition for s in spans if s.what == "client") == list(range(len(asked)))
    assert {s.what for s in spans} == {"client", "train"}


def test_the_last_round_ends_before_clients_score_the_network():
    profile = Profile()
    profile.take(0, [Span("client", 0, 2, 1, 4), Span("train", 0, 2), Span("query.score", 3, 9)])
    assert profile.shares(range(1, 2)).seconds == 2


def test_shares_are_those_of_two_workers_drawn_by_hand():
    """Ten seconds: one trains two clients side by side for 6 s, the other evaluates for 3 s."""
    profile = Profile()
    profile.workers = 2
    profile.take(0, [Span("client", 0, 6, 1, 4), Span("client", 0, 3, 1, 5), Span("train", 0, 6)])
    profile.take(0, [Span("client", 10, 11, 2, 4), Span("train", 10, 11)])
    profile.take(1, [Span("evaluate", 2, 5), Span("query.recalibrate", 9, 11)])
    profile.take(SERVER, [Span("evaluate", 0, 10)])
    first = profile.shares(range(1, 2))
    assert (first.seconds, first.train, first.query) == (10, 6 / 20, 1 / 20)
    assert (first.evaluate, first.wait, first.lanes) == (3 / 20, pytest.approx(0.5), 9 / 6)
    assert profile.shares(range(2, 3)).query == profile.shares(range(2, 3)).train == 0.5
    clients = [(row["worker"], row["client"], row["begun"]) for row in profile.rows()]
    assert clients[0] == ("server", None, 0)
    assert ("worker 1", 5, 0) in clients


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=12))
def test_lanes_that_are_drawn_are_as_few_as_can_be(times):
    spans = [Span("client", begun, begun + length) for begun, length in times]
    drawn = in_lanes(spans)
    for lane, span in drawn:
        others = [other for at, other in drawn if at == lane and other is not span]
        assert all(o.ended <= span.begun or o.begun >= span.ended for o in others)
    deepest = max((sum(s.begun <= t < s.ended for s in spans) for t in range(30)), default=0)
    assert len({lane for lane, _ in drawn}) == deepest


@pytest.mark.parametrize("rounds", [1, 2, 9])
def test_the_picture_has_a_bar_for_every_client_of_the_rounds_that_it_shows(rounds):
    profile = Profile()
    for number in range(1, rounds + 1):
        at = 4.0 * number
        clients = [Span("client", at, at + 2, number, 1), Span("client", at + 1, at + 3, number, 2)]
        profile.take(0, [*clients, Span("train", at, at + 3), Span("evaluate", at + 3, at + 4)])
    (panel,) = timeline(profile).axes
    shown = {1: 1, 2: 1, 9: 3}[rounds]
    assert len(panel.collections) == (2 + 2) * shown
    begun = 4.0 * (1 if rounds == 1 else 2)
    drawn = [bar.get_paths()[0].get_extents() for bar in panel.collections]
    across = [(extent.x0, extent.x1) for extent in drawn]
    assert across[-2 * shown :][:2] == [(0.0, 2.0), (1.0, 3.0)]
    names = [text.get_text() for text in panel.texts]
    assert names[0] == f"round {begun / 4:.0f}"
    assert len(names) == shown
