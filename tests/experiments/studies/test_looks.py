"""`fednf study` with looks: blocks are run whole, and what is decided gets no further run."""

import json
import re
from pathlib import Path

import pytest

from tests.experiments.answers import refused

STUDY = """
import fl

SMALL = {"recipe": "none", "network.depth": 3, "network.width": 4, "rounds": 2, "device": "cpu"}
SMALL |= {"partition.kind": "iid", "partition.clients": 20, "sampling.clients": 4}
STUDY = fl.Study(
    "rates",
    "Does a network learn?",
    fl.grid(
        fl.Experiment.from_flat(SMALL),
        fl.each("client.lr", (1e-6, 0.1)),
        fl.each("seed", range(1, 9)),
    ),
    contrasts=fl.Contrasts({"client.lr": 1e-6}, margin=0.5, looks=LOOKS),
)
"""


@pytest.mark.slow
def test_a_study_stops_at_the_look_that_decides_it_and_repeats_itself(fednf):
    Path("rates.py").write_text(STUDY.replace("LOOKS", "(7, 8)"))
    done = fednf("study", "rates.py", "--out", "here", "--jobs", "2", "--json")
    assert done.status == 0, done.err
    assert re.search(r"look after 7 seeds: learning rate 0\.1 \(.*\): BETTER\n", done.out)
    assert "runs that are not needed, since what they compare is decided: 2" in done.out
    assert json.loads(done.lines[-1])["runs"] == 14
    assert len(list(Path("here").glob("*/result.json"))) == 14
    again = fednf("study", "rates.py", "--out", "here", "--jobs", "2", "--json")
    assert json.loads(again.lines[-1]) == json.loads(done.lines[-1])
    assert len(list(Path("here").glob("*/result.json"))) == 14
    assert fednf("watch", "here", "--once").out.count("waiting") == 0
    page = Path("here/report.html").read_text(encoding="utf-8")
    assert "judged at 7 and 8 seeds alone" in page
    elsewhere = fednf("study", "rates.py", "--out", "there", "--from", "here", "--json")
    assert json.loads(elsewhere.lines[-1]) == {
        "report": "there/report.html",
        "runs": 0,
        "failed": {},
    }


@pytest.mark.slow
def test_what_no_look_decides_gets_all_seeds(fednf):
    """Two rates that differ in the fourth digit."""
    file = STUDY.replace("LOOKS", "(7, 8)").replace("margin=0.5", "margin=0.001")
    Path("rates.py").write_text(file.replace("(1e-6, 0.1)", "(0.1, 0.1003)").replace("1e-6", "0.1"))
    done = fednf("study", "rates.py", "--out", "here", "--jobs", "2")
    assert done.status == 0, done.err
    assert [line for line in done.lines if line.startswith(("runs:", "look"))] == [
        "runs: 14, at most 2 at a time, into here",
        *re.findall(r"look after 7 seeds: .*: UNDECIDED.*", done.out),
        "runs: 2, at most 2 at a time, into here",
        *re.findall(r"look after 8 seeds: .*: UNDECIDED.*", done.out),
    ]
    assert len(list(Path("here").glob("*/result.json"))) == 16
    assert "not needed" not in done.out


def test_looks_that_do_not_fit_are_one_line_and_nothing_is_written(fednf):
    Path("rates.py").write_text(STUDY.replace("LOOKS", "(6, 7)"))
    told = refused(fednf("study", "rates.py", "--out", "here"))
    assert "looks=[6, 7], expected numbers that rise from 5 or more to 8" in told
    assert not Path("here").exists()
