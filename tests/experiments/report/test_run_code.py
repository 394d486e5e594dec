"""A report of somebody else's folder runs no code of it, unless it is asked to."""

import json

import pytest

from experiments import report
from experiments.report.results import read
from experiments.report.sections import circumstances
from fl.config.components import sources
from fl.config.parsing import ConfigError

CODE = """
from pathlib import Path

Path({marker!r}).touch()


def deal(labels, clients, rng):
    return [part for part in rng.permutation(len(labels)).reshape(clients, -1)]


def net(shape, classes):
    raise AssertionError("a report needs no network")
"""


@pytest.fixture
def folder(write_run, tmp_path):
    """Return a folder with a run whose code leaves a mark when it is run, and the mark's path."""

    def make(flat):
        run, marker = tmp_path / "runs" / "one", tmp_path / "marker"
        write_run(run, [0.1, 0.5])
        text = sources.as_text({"his.py": CODE.format(marker=str(marker))})
        about = json.loads((run / "experiment.json").read_text())
        about["knobs"] |= {**flat, "components": sources.abridged(text)}
        (run / "experiment.json").write_text(json.dumps(about))
        (run / "components").mkdir()
        (run / "components" / "his.py").write_text(sources.parse(text)["his.py"])
        return tmp_path / "runs", marker

    return make


def test_a_report_runs_no_code_of_a_folder_and_says_what_it_leaves_out(folder):
    runs, marker = folder({"partition.kind": "his.py:deal", "network.kind": "his.py:net"})
    page = report.write(runs).read_text()
    assert not marker.exists()
    assert "partition.kind=his.py:deal is code in the run" in page
    assert "add --run-code" in page
    assert "his.py:net" in page
    (run,) = read(runs).runs
    with pytest.raises(ConfigError, match="which a report does not run"):
        circumstances.experiment(run)


def test_asked_to_it_does(folder):
    runs, marker = folder({"partition.kind": "his.py:deal"})
    page = report.write(runs, run_code=True).read_text()
    assert marker.exists()
    assert "add --run-code" not in page


def test_a_network_of_his_hides_no_deal(folder):
    runs, marker = folder({"network.kind": "his.py:net", "recipe": "own"})
    (run,) = read(runs).runs
    assert circumstances.experiment(run).partition.clients == 20
    assert circumstances.data_set(run) is not None
    report.write(runs)
    assert not marker.exists()
