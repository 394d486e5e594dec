"""Networks as clients trained them: figures are the journal's, and who replied counts once."""

import csv
import io
import json

import numpy as np
import pytest

from experiments.report import csv_files
from experiments.report.page import write
from experiments.report.results import read
from experiments.report.sections import held_out, personal
from experiments.report.sections.held_out import Report, Scores
from fl.data import deal, load, share
from fl.server.journal import Journal
from fl.simulation import run

TITLE = "What local training does for each client"
EVERY = "How the last network serves every client"


@pytest.fixture
def write_kept(write_run):
    """Return a function that writes a run whose clients report (round, client, images, …)."""

    def write(folder, accounts, knobs=None):
        write_run(folder, [0.1, 0.4, 0.5], {"partition.held-out": 0.2, **(knobs or {})})
        names = ("round", "partition", "held_out", "global_correct", "personal_correct")
        lines = [
            {**dict(zip(names, a, strict=True)), "held": 40, "steps": 5, "single_value_steps": 0}
            for a in accounts
        ]
        (folder / "clients.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return folder

    return write


FIRST = [
    (1, 0, 10, 1, 9),  # replied once, and gained
    (1, 1, 20, 8, 6),
    (2, 1, 20, 10, 8),  # replied again, and lost
    (2, 2, 30, 15, 27),
    (2, 3, 0, 0, 0),  # holds nothing out
]
SECOND = [(1, 0, 10, 5, 5), (1, 2, 30, 3, 6)]  # nobody replied in round 2


@pytest.fixture
def folder(tmp_path, write_kept):
    for seed, accounts in ((1, FIRST), (2, SECOND)):
        write_kept(tmp_path / f"seed-{seed}", accounts, {"seed": seed})
    return tmp_path


def summary(folder):
    return list(csv.DictReader(io.StringIO(csv_files.summary(read(folder)))))


def section(folder):
    """Make the section without its figure."""
    return personal.section(read(folder), None)


def test_figures_are_those_of_a_pocket_calculator(folder):
    first, second = (held_out.scores(run) for run in read(folder).runs)
    assert (first.shared, first.own) == (25 / 50, 35 / 50)
    assert first.gain == pytest.approx(0.2)
    assert [report.client for report in first.last] == [1, 2]
    assert [(r.client, r.own) for r in first.latest] == [(0, 0.9), (1, 0.4), (2, 0.9)]
    assert (first.lowest_tenth, first.median, first.losers) == (0.4, 0.9, 1)
    assert (second.shared, second.own, second.losers) == (8 / 40, 11 / 40, 0)
    assert (second.lowest_tenth, second.median) == (0.2, 0.35)


def test_the_section_shows_them(folder):
    text = section(folder)
    assert TITLE in text
    for mean, ends in (
        ("35.0%", "20.0–50.0"),
        ("48.8%", "27.5–70.0"),
        ("+13.7", "+7.5 to +20.0"),
        ("30.0%", "20.0–40.0"),
        ("62.5%", "35.0–90.0"),
    ):
        assert f'<td class="number"><span>{mean}</span><small>{ends}</small></td>' in text
    assert "<span>1 of 5</span>" in text
    assert "count: 2 a run" in text
    assert "A client has 10 to 30 held-out images (median 20)" in text


def test_the_sheet_has_the_means(folder):
    (row,) = summary(folder)
    means = {"shared": 0.35, "own": 0.4875, "gain": 0.1375, "lowest_tenth": 0.3, "median": 0.625}
    for name, mean in means.items():
        assert float(row[f"held_out_{name}_mean"]) == pytest.approx(mean)


def test_nothing_is_said_where_nothing_is_held_out(tmp_path, write_run, write_kept):
    write_run(tmp_path / "a", [0.1, 0.5], {"recipe": "none"})
    assert TITLE not in write(tmp_path).read_text(encoding="utf-8")
    assert not list((tmp_path / "figures").glob("gains.*"))
    assert summary(tmp_path)[0]["held_out_own_mean"] == ""
    write_kept(tmp_path / "b", [(1, 0, 0, 0, 0)], {"recipe": "swish"})
    assert section(tmp_path) is None
    write_kept(tmp_path / "c", FIRST, {"recipe": "swish", "seed": 2})
    assert section(tmp_path).count('scope="rowgroup"') == 1
    assert sorted(bool(row["held_out_own_mean"]) for row in summary(tmp_path)) == [False, True]


def test_unfinished_runs_do_not_enter(tmp_path, write_kept):
    (write_kept(tmp_path / "a", FIRST) / "result.json").unlink()
    assert section(tmp_path) is None


@pytest.mark.parametrize(("clients", "place"), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3)])
def test_the_lowest_tenth_is_one_client_s(clients, place):
    reports = [Report(client, 400, 100, 0, 100 - client) for client in range(clients)]
    assert Scores((), tuple(reports)).lowest_tenth == reports[clients - place].own


def test_a_dot_is_a_client_s_last_gain(folder):
    (panel,) = personal.figure(read(folder)).axes
    dots = [line for line in panel.lines if line.get_marker() == "o"]
    gains = sorted(float(x) for line in dots for x in line.get_xdata())
    assert gains == pytest.approx([-0.1, 0, 0.1, 0.4, 0.8])
    large = max(dots, key=lambda line: line.get_markersize())
    assert sorted(large.get_xdata()) == pytest.approx([0.1, 0.4])  # 30 images each
    (median,) = (line for line in panel.lines if line.get_marker() == "|")
    assert list(median.get_xdata()) == pytest.approx([0.1])


def test_of_very_many_clients_some_are_drawn(tmp_path, write_kept):
    many = [(2, client, 1000, 0, client) for client in range(3 * personal.MOST_DOTS)]
    write_kept(tmp_path / "a", many)
    (panel,) = personal.figure(read(tmp_path)).axes
    shown = [float(x) for line in panel.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert len(shown) == personal.MOST_DOTS
    assert (min(shown), max(shown)) == (0, pytest.approx(many[-1][1] / 1000))
    assert "Of more than 200 clients" in section(tmp_path)


def test_the_same_runs_give_the_same_bytes(folder):
    def written():
        write(folder)
        paths = [folder / "report.html", folder / "summary.csv", *folder.glob("figures/gains.*")]
        return {path.name: path.read_bytes() for path in paths}

    first = written()
    assert first.keys() >= {"gains.png", "gains.svg"}
    assert TITLE.encode() in first["report.html"]
    assert written() == first


def test_a_run_s_own_figures_and_guessing(tiny, tmp_path):
    knobs = tiny({"partition.held-out": 0.25, "partition.alpha": 0.1, "sampling.clients": 3})
    result = run(knobs, Journal(tmp_path / "run"))
    (kept,) = held_out.served(read(tmp_path)).values()
    (scores,) = kept.scores
    line = Journal(tmp_path / "run").rounds()[-1]
    assert scores.shared == line["global_accuracy_held_out"]
    assert scores.own == result["personal_accuracy_held_out"]
    right, images, labels = 0, 0, load(knobs.data.name).train.labels.numpy()
    for client in (report.client for report in scores.last):
        most = np.bincount(labels[deal(knobs)[client]]).argmax()
        own = share({"partition-id": client}, knobs).held_out
        right, images = right + int((labels[own] == most).sum()), images + len(own)
    assert len(scores.last) == 3
    assert kept.guess.values == (right / images,)
    assert f"<span>{right / images:.1%}</span>" in section(tmp_path)


def test_guessing_is_not_made_up(folder):
    """The deal of a run written by hand is nobody's, so who held what is not known."""
    text = section(folder)
    assert "How far guessing the most frequent class gets" in text
    assert '<td class="number muted">–</td>' in text


def test_guessing_is_not_said_of_another_share(tiny, tmp_path):
    run(tiny({"partition.held-out": 0.25}), Journal(tmp_path / "run"))
    (mine,) = read(tmp_path).runs
    first, *_ = held_out.scores(mine).last
    assert held_out.guess(mine, [first]) is not None
    other = Report(first.client, first.trained - 1, first.images + 1, 0, 0)
    assert held_out.guess(mine, [other]) is None


def test_noise_that_is_missing_is_said(tmp_path, write_kept):
    write_kept(tmp_path / "a", FIRST, {"partition.kind": "feature-noise"})
    assert "without the noise that clients train with" in section(tmp_path)


def surveyed(folder, mean: float, domains: dict[str, float]) -> None:
    told = json.loads((folder / "result.json").read_text())
    for group, shift in (("trained", 0.0), ("unseen", -0.1)):
        told[f"{group}_clients"] = 8 if group == "trained" else 2
        for name, value in (("mean", mean + shift), ("worst_tenth", 0.25), ("spread", 0.125)):
            told[f"{group}_accuracy_{name}"] = value
    told["domains_accuracy"] = {
        name: {"clients": 4, "mean": value, "worst_tenth": value, "spread": 0.0}
        for name, value in domains.items()
    }
    told["client_scores"], told["unscored"] = [{"partition": 0}], []
    (folder / "result.json").write_text(json.dumps(told))


def test_the_page_and_the_sheet_have_what_all_clients_said(tmp_path, write_run):
    for seed, mean, own in ((1, 0.5, {"red": 0.625}), (2, 0.7, {"red": 0.375, "blue": 0.2})):
        folder = tmp_path / f"seed-{seed}"
        write_run(folder, [0.1, 0.5], {"seed": seed, "partition.held-out": 0.2})
        surveyed(folder, mean, own)
    text = str(held_out.every_client(read(tmp_path)))
    for value, ends in (("60.0%", "50.0–70.0"), ("50.0%", "40.0–60.0"), ("50.0%", "37.5–62.5")):
        assert f'<td class="number"><span>{value}</span><small>{ends}</small></td>' in text
    assert '<td class="number"><span>20.0%</span></td>' in text
    assert '<td class="number">8</td>' in text
    sheet = csv_files.runs(read(tmp_path))
    assert "client_scores" not in sheet
    assert "unseen_accuracy_mean" in sheet
    assert EVERY in write(tmp_path).read_text(encoding="utf-8")


def test_runs_that_did_not_ask_all_clients_have_no_such_section(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5], {"recipe": "none"})
    assert held_out.every_client(read(tmp_path)) is None
