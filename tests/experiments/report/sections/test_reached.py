"""How soon runs reach a value: by hand, with runs that never do, and by the command."""

import html
import json
import re

import pytest

from experiments.report import write
from experiments.report.results import read
from experiments.report.sections.decision.reached import reached
from experiments.statistics.exact import log_rank
from tests.experiments.answers import refused

SEEDS = range(1, 6)
FAST, SLOW = [0.1, 0.3, 0.5, 0.5], [0.1, 0.2, 0.3, 0.5]


@pytest.fixture
def folder(tmp_path, write_run):
    """BatchNorm is there after three rounds, ZC-Swish after two, SaluNet at one seed of five."""
    for seed in SEEDS:
        never = [0.1, 0.2, 0.3, 0.39 + 0.02 * (seed == 1)]
        for recipe, rounds in (("batchnorm", SLOW), ("zc-swish", FAST), ("salunet", never)):
            write_run(tmp_path / f"{recipe}-{seed}", rounds, {"recipe": recipe, "seed": seed})
    return tmp_path


def shown(page):
    """Return the rows of the page's table, as texts."""
    table = re.search(r"<h2>How soon they reach 40\.0%</h2>.*?</table>", page, re.S).group()
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)
    return [list(map(html.unescape, re.findall(r">([^<>]+)</t[dh]>", row))) for row in rows]


def test_a_run_reaches_a_value_after_the_first_round_that_has_it(folder):
    by_recipe = {run.knobs["recipe"]: run for run in read(folder).runs if run.seed == 2}
    there = reached(by_recipe["batchnorm"], 0.4)
    assert (there.round, there.there) == (3, True)
    assert there.spent == {"images": 900, "bytes_up": 3000, "simulated_seconds": 0}
    never = reached(by_recipe["salunet"], 0.4)
    assert (never.round, never.there) == (3, False)


def test_rounds_in_which_nobody_measured_do_not_count(folder):
    path = folder / "zc-swish-2" / "rounds.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2] |= {"test_accuracy": None, "test_loss": None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,) = (run for run in read(folder).runs if run.name == "zc-swish-2")
    assert reached(run, 0.4).round == 3


def test_the_page_has_medians_and_the_log_rank_test(folder, fednf):
    assert "How soon" not in write(folder).read_text(encoding="utf-8")
    done = fednf("report", str(folder), "--target", "0.4")
    assert done.status == 0, done.err
    rows = {row[0]: row[1:] for row in shown((folder / "report.html").read_text(encoding="utf-8"))}
    assert rows["BatchNorm"][:4] == ["5 of 5", "3", "900", "0.0 MB"]
    assert rows["ZC-Swish"][:3] == ["5 of 5", "2", "600"]
    assert rows["SaluNet"][:3] == ["1 of 5", "> 3", "–"]
    p = log_rank([(2, True)] * 5, [(3, True)] * 5)
    assert rows["ZC-Swish"][-1] == f"{2 * p:.2g}"  # Holm, of two
    assert (folder / "tables" / "reached.csv").is_file()


def test_with_a_fleet_there_is_simulated_time(folder):
    for path in folder.glob("*/rounds.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        timed = [{**line, "simulated_seconds": 10.0 * bool(line["round"])} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in timed))
    rows = {r[0]: r[1:] for r in shown(write(folder, target=0.4).read_text(encoding="utf-8"))}
    assert (rows["ZC-Swish"][4], rows["BatchNorm"][4]) == ("20 s", "30 s")


@pytest.mark.parametrize("value", ["40", "0", "-0.1", "nan"])
def test_a_value_that_no_accuracy_has_is_refused_in_one_line(folder, fednf, value):
    told = refused(fednf("report", str(folder), f"--target={value}"))
    assert "expected a fraction, above 0 and up to 1" in told
    assert not (folder / "report.html").exists()
