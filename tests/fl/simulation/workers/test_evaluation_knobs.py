"""`evaluation.every` and `evaluation.images`: what is evaluated when; training is the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.config import Experiment
from fl.data import load
from fl.reproducibility.files import packed, unpacked
from fl.server import rounds
from fl.server.contents import RIGHT
from fl.server.journal import Journal
from fl.server.result import load_model
from fl.server.watching.evaluation import sampled
from fl.simulation import run
from fl.tasks import objective
from fl.training.loop import evaluate
from fl.training.parameters import build_network
from tests.callbacks import EachRound
from tests.fl.simulation.test_worker_pool import FakePool

SOME = {"evaluation.every": 3, "evaluation.images": 300, "engine": "sequential"}


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 130), st.integers(0, 3))
def test_a_sample_has_each_class_in_proportion(sizes, images, seed):
    """Of n_c examples among n, m · n_c / n are drawn, rounded up or down."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    knobs = Experiment.from_flat({"evaluation.images": images, "seed": seed})
    found = sampled(knobs, labels)
    most = min(images, sum(sizes))
    assert len(found) == most
    assert found.tolist() == sorted(set(found.tolist()))
    for label, size in enumerate(sizes):
        drawn = int((labels[found] == label).sum())
        assert abs(drawn - most * size / max(sum(sizes), 1)) < 1
    assert torch.equal(found, sampled(knobs, labels))


def test_another_seed_draws_another_sample():
    labels = torch.arange(1000) % 10
    one, two = (
        sampled(Experiment.from_flat({"evaluation.images": 100, "seed": seed}), labels)
        for seed in (1, 2)
    )
    assert not torch.equal(one, two)
    everything = sampled(Experiment.from_flat({"evaluation.images": 2000}), labels)
    assert torch.equal(everything, torch.arange(1000))


def without(line: dict, *keys: str) -> dict:
    """Return a line without what depends on its evaluation and on clocks."""
    gone = ("test_", "validation_", "sample_", "evaluated")
    return {k: v for k, v in line.items() if not k.startswith(gone) and "seconds" not in k}


def test_rounds_between_are_evaluated_on_a_sample(tiny, tmp_path):
    flat = {"rounds": 4, "data.validation": 0.1, "engine": "sequential"}
    often, seldom = (Journal(tmp_path / name) for name in ("often", "seldom"))
    first = run(tiny(flat), often)
    knobs = tiny({**flat, **SOME})
    second = run(knobs, seldom, pool=FakePool(2))
    assert second["model_sha256"] == first["model_sha256"]
    assert knobs.identity != tiny(flat).identity
    lines = seldom.rounds()
    assert [line["evaluated"] for line in lines] == [1000, 300, 300, 1000, 1000]
    for ours, full in zip(lines, often.rounds(), strict=True):
        assert without(ours) == without(full)
        if ours["evaluated"] == 1000:
            assert ours["test_accuracy"] == full["test_accuracy"]
            assert ours["validation_accuracy"] == full["validation_accuracy"]
            assert "sample_loss" not in ours
        else:
            assert ours["test_loss"] is ours["test_accuracy"] is ours["validation_accuracy"] is None


@pytest.mark.slow
def test_a_longer_run_has_the_same_network_and_a_sample_in_the_place_of_its_end(tiny, tmp_path):
    knobs, longer = tiny({**SOME, "rounds": 4}), tiny({**SOME, "rounds": 5})
    run(knobs, short := Journal(tmp_path / "short"))
    data, network = load(knobs), build_network(knobs, torch.Generator())
    network.load(short.network("model.safetensors")[0])
    images = data.test.only(sampled(knobs, data.test.labels))
    loss, (sums,) = evaluate(network, data, images, objective(knobs))
    found, expected = (
        run(longer, short, resume=True),
        run(longer, whole := Journal(tmp_path / "whole")),
    )
    assert (found["rounds"], found["model_sha256"]) == (5, expected["model_sha256"])
    assert [line["evaluated"] for line in short.rounds()] == [1000, 300, 300, 1000, 1000, 1000]
    sample = whole.rounds()[4]
    assert (sample["sample_loss"], sample["sample_accuracy"]) == (loss, float(sums[0]) / 300)


def test_the_best_round_is_one_of_those_that_are_evaluated_in_full(tiny, tmp_path, monkeypatch):
    own = rounds.Rounds._figures
    scores = [0.1, 0.9, 0.9, 0.4, 0.9, 0.3, 0.2]

    def scored(self, trained, parts):
        found = own(self, trained, parts)
        known = found["validation_accuracy"] is not None
        score = scores[trained.line["round"]] if known else None
        return {**found, "validation_accuracy": score}

    monkeypatch.setattr(rounds.Rounds, "_figures", scored)
    flat = {**SOME, "evaluation.images": 0, "data.validation": 0.1, "rounds": 9}
    journal = Journal(tmp_path / "run")
    result = run(tiny({**flat, "run.patience": 2}), journal)
    assert (result["rounds"], result["ended_by"]) == (6, "run.patience=2")  # not 5
    assert result["best_round"] == journal.network("best.safetensors")[1]["round"] == 3
    assert result["final_loss"] is not None
    assert [line["evaluated"] for line in journal.rounds()] == [1000, 0, 0, 1000, 0, 0, 1000]


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_is_stopped_between_goes_on_as_if_it_had_not_been(tiny, tmp_path, at):
    def stop(line: dict) -> None:
        if line["round"] == at:
            raise KeyboardInterrupt

    knobs = tiny({**SOME, "rounds": 4, "data.validation": 0.1})
    journal, whole = Journal(tmp_path / "run"), Journal(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(knobs, journal, callbacks=[EachRound(stop)])
    found, expected = run(knobs, journal, resume=True), run(knobs, whole)
    keys = ("model_sha256", "final_accuracy", "best_accuracy", "best_round")
    assert [found[key] for key in keys] == [expected[key] for key in keys]
    ours, theirs = ([line["evaluated"] for line in x.rounds()] for x in (journal, whole))
    assert ours == theirs


@pytest.mark.slow
def test_reports_understand_rounds_between(tiny, tmp_path):
    from experiments.report import results
    from experiments.report.csv_files import rounds as as_rows
    from experiments.report.sections import accuracy

    for seed in (1, 2):
        run(tiny({**SOME, "rounds": 4, "seed": seed}), Journal(tmp_path / "runs" / str(seed)))
    found = results.read(tmp_path / "runs")
    assert len(as_rows(found).splitlines()) == 1 + 2 * 5
    figure = accuracy.curves(found)
    (line,) = [x for axes in figure.axes for x in axes.get_lines() if len(x.get_xdata()) > 2]
    assert list(line.get_xdata()) == [0, 3, 4]
    assert np.isfinite(line.get_ydata()).all()


@pytest.mark.parametrize("workers", [None, 2])
def test_a_full_evaluation_says_of_each_test_example_whether_it_was_right(tiny, tmp_path, workers):
    flat = {**SOME, "rounds": 4, "data.validation": 0.1}
    journal = Journal(tmp_path / "run")
    run(tiny(flat), journal, pool=FakePool(workers) if workers else None)
    lines = journal.rounds()
    assert [line["evaluated"] if RIGHT in line else None for line in lines] == [
        1000, None, None, 1000, 1000,
    ]  # fmt: skip
    found = unpacked(lines[-1][RIGHT], 1000)
    model, test = load_model(journal.folder), load(tiny(flat)).test
    with torch.no_grad():
        expected = model(test.images).argmax(1) == test.labels
    assert found.tolist() == expected.tolist()
    assert found.mean() == lines[-1]["test_accuracy"]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_are_read_as_they_were_written(bits):
    assert unpacked(packed(np.array(bits)), len(bits)).tolist() == bits
