import pytest

from experiments.report.page import write
from experiments.report.results import read
from experiments.report.sections.devices import reached, time_until
from fl.config import Experiment
from fl.server.journal import Journal
from fl.simulation import run
from fl.simulation.study import Study, grid
from tests.conftest import TINY

FLEET = {
    "client.epochs": 2,
    "fleet.stragglers": 0.9,
    "fleet.memory": "16:0.4,32:0.6",
    "fleet.speeds": "lognormal:500:0.3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    recipes = [{"recipe": "none"}, {"recipe": "zc-swish"}]
    base = Experiment.from_flat({**TINY, **FLEET, "partition.clients": 20, "sampling.clients": 5})
    study, place = Study("trial", "Who waits?", grid(base, recipes)), tmp_path_factory.mktemp("a")
    study.begin(place, "fednf study trial.py")
    for name, experiment in zip(study.folders(), study.experiments, strict=True):
        run(experiment, Journal(place / name))
    return place


def test_the_page_says_what_devices_did(folder):
    text = write(folder).read_text(encoding="utf-8")
    assert "Unequal devices" in text
    assert text.count('<td class="number">10 of 10</td>') == 2
    accounts = Journal(next(folder.glob("none_*"))).clients()
    mean = sum(account["epochs"] for account in accounts) / 10
    assert f'<td class="number">{mean:.1f}</td>' in text
    sixteen = sum(account["batch_size"] == 16 for account in accounts) / 10
    assert f"16: {sixteen:.0%}, 32: {1 - sixteen:.0%}" in text


def test_time_counts_until_the_accuracy_is_reached(folder):
    results = read(folder)
    goal = reached(results, results.conditions[0])
    for one in results.runs:
        seconds = [line["simulated_seconds"] or 0.0 for line in one.rounds]
        first = next(i for i, line in enumerate(one.rounds) if line["test_accuracy"] >= goal)
        assert time_until(one, goal) == sum(seconds[: first + 1])
        assert time_until(one, 1.1) is None
    assert goal == min(max(line["test_accuracy"] for line in one.rounds) for one in results.runs)


def test_equal_devices_are_not_mentioned(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5])
    assert "Unequal devices" not in write(tmp_path).read_text(encoding="utf-8")
